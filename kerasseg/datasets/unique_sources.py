"""Cases that can be told apart by their names."""

import re
from collections.abc import Sequence

from kerasseg.datasets.source import BrokenSource, CaseSource


def unique_sources(sources: Sequence[CaseSource]) -> list[CaseSource]:
    """Sources in the order of their case ids; several of one id become a broken one."""
    by_id: dict[str, list[CaseSource]] = {}
    for source in sources:
        by_id.setdefault(source.case_id, []).append(source)
    result: list[CaseSource] = []
    for case_id, same in sorted(by_id.items(), key=lambda item: _natural(item[0])):
        if len(same) == 1:
            result.append(same[0])
            continue
        places = [str(source.files[0].parent) for source in same]
        if len(set(places)) < len(places):
            places = [str(source.files[0]) for source in same]
        files = tuple(path for source in same for path in source.files)
        reason = f"{case_id} is the name of {len(same)} cases, in {' and '.join(places)}: "
        reason += "rename or remove all but one."
        result.append(BrokenSource(case_id, same[0].patient_id, files, reason))
    return result


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key under which volume_10 comes after volume_9."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
