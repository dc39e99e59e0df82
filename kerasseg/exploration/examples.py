"""Which cases are drawn as examples."""

from dataclasses import dataclass

from kerasseg.exploration.case_statistics import CaseStatistics
from kerasseg.exploration.data_set import DataSet

EXAMPLES = ("smallest", "median", "largest", "without_tumour")
"""Every name an example can have."""


@dataclass(frozen=True)
class Example:
    """A case and what it is an example of: one of `EXAMPLES`, and in words."""

    name: str
    title: str
    case: CaseStatistics


def choose_examples(data_set: DataSet) -> list[Example]:
    """The smallest, the median and the largest tumour, then the first case without one.

    Where no case has a tumour, or no segmentation at all, brains take the place of tumours.
    """
    tumours = data_set.with_tumour
    if tumours:
        ranked = sorted(tumours, key=data_set.volume)
        chosen = _three(ranked, "tumour")
        chosen += [
            Example("without_tumour", "without tumour", case)
            for case in data_set.labelled
            if not case.tumour_voxels
        ][:1]
        return chosen
    ranked = sorted(data_set.cases, key=lambda case: data_set.in_unit(case, case.brain_voxels))
    return _three(ranked, "brain")


def _three(ranked: list[CaseStatistics], what: str) -> list[Example]:
    places = {"smallest": 0, "median": (len(ranked) - 1) // 2, "largest": len(ranked) - 1}
    if len(ranked) < 3:
        places.pop("median")
    if len(ranked) == 1:
        return [Example("median", f"the only {what}", ranked[0])]
    return [Example(name, f"{name} {what}", ranked[place]) for name, place in places.items()]
