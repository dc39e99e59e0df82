"""`Input`: a case that is to be predicted."""

from collections.abc import Mapping
from dataclasses import dataclass

from kerasseg.datasets.source import BrokenSource, CaseSource


@dataclass(frozen=True)
class Input:
    """A source without a segmentation.

    picture:   whether it is one picture, whose mask is a picture, too
    label_ids: canonical id -> the data set's own, where the files say; else None
    """

    source: CaseSource
    picture: bool = False
    label_ids: Mapping[int, int] | None = None


def broken(case_id: str, files: tuple, reason: str) -> Input:
    """An input that was seen to be wrong before it was opened."""
    return Input(BrokenSource(case_id, case_id, files, reason))


def inverse(label_map: Mapping[int, int]) -> dict[int, int]:
    """A data set's ids -> canonical ones, the other way round: the smallest where several fit."""
    return {label_map[own]: own for own in sorted(label_map, reverse=True)}
