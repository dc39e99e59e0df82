"""The layout `nifti`: files that are found by name patterns, to train on or to be predicted."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource, Input, broken
from kerasseg.datasets.folders import files_below, unpacked
from kerasseg.datasets.nifti import NiftiSource, nifti_source

_SEGMENTATION = "segmentation"
_TOKEN = re.compile(r"\{case\}|\{patient\}|\*\*/|\*|\?")


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every case by the patterns of `data.files`. One that lacks a modality is broken."""
    assert settings.root is not None  # checked when the config is read
    patterns = {m: settings.files[m] for m in settings.modalities}
    if settings.segmentation is not None:
        patterns[_SEGMENTATION] = settings.segmentation
    compiled = {kind: pattern_regex(pattern) for kind, pattern in patterns.items()}
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for folder, names in files_below(settings.root):
        for name in names:
            path = folder / name
            for kind, pattern in compiled.items():
                match = match_below(settings.root, path, pattern)
                if match:
                    found.setdefault(_names(match), {}).setdefault(kind, []).append(path)
    return [
        replace(_source(case_id, kinds, patterns, settings), patient_id=patient_id)
        for (case_id, patient_id), kinds in found.items()
        if set(kinds) - {_SEGMENTATION}
    ]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Turn a pattern into a regular expression over the path below `data.root`.

    `*` and `?` stay within one folder's name, `**/` is any number of folders, and a second
    `{case}` is the same name again. `{patient}` likewise.
    """
    parts: list[str] = []
    end, seen = 0, set()
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        if token[0].startswith("{"):
            name = token[0].strip("{}")
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
        else:
            parts.append({"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}[token[0]])
    return re.compile("".join(parts) + re.escape(pattern[end:]), re.DOTALL)


def _names(match: re.Match[str]) -> tuple[str, str]:
    """Return the ids of case and patient; those of a case begin with its patient, if that is told.

    So every patient may have a folder `week-000`.
    """
    patient = match.groupdict().get("patient")
    case_id = f"{patient}_{match['case']}" if patient else match["case"]
    return case_id, patient or case_id


def match_below(root: Path, path: Path, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """Match a file's path below `root`; that of an unpacked file may have its folder's name."""
    for place in dict.fromkeys((path, unpacked(path))):
        match = pattern.fullmatch(place.relative_to(root).as_posix())
        if match:
            return match
    return None


def _source(
    case_id: str, kinds: dict[str, list[Path]], patterns: dict[str, str], settings: DataSettings
) -> BrokenSource | NiftiSource:
    files = tuple(path for paths in kinds.values() for path in paths)
    missing = [kind for kind in settings.modalities if kind not in kinds]
    if missing:
        looked = " and ".join(f"{kind} ({patterns[kind]})" for kind in missing)
        reason = (
            f"{settings.root}: case {case_id} has no {looked}, only "
            f"{', '.join(p.name for p in files)}: restore the file, remove the case, or change "
            "data.files."
        )
        return BrokenSource(case_id, case_id, files, reason)
    for kind, paths in kinds.items():
        if len(paths) > 1:
            reason = (
                f"{paths[0]} and {paths[1]} both fit the pattern of {kind}, {patterns[kind]}: make "
                "the pattern narrower, or keep one file."
            )
            return BrokenSource(case_id, case_id, files, reason)
    images = [kinds[m][0] for m in settings.modalities]
    segmentation = kinds[_SEGMENTATION][0] if _SEGMENTATION in kinds else None
    return nifti_source(settings, case_id, images, segmentation)


def inputs(files: list[Path], paths: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases among files by the patterns of `data.files`.

    A pattern counts from the folder in `paths` or, where it names folders, from one above it: the
    user may name the folder of a single case.
    """
    patterns = {m: data.files[m] for m in data.modalities if m in data.files}
    compiled = {kind: pattern_regex(pattern) for kind, pattern in patterns.items()}
    roots = [(path if path.is_dir() else path.parent).absolute() for path in paths]
    levels = max((pattern.count("/") for pattern in patterns.values()), default=0)
    for up in range(levels + 1):
        found: dict[str, dict[str, list[Path]]] = {}
        above = dict.fromkeys([root, *root.parents][min(up, len(root.parents))] for root in roots)
        for path in files:
            root = next(r for r in above if r in path.absolute().parents)
            for kind, pattern in compiled.items():
                match = match_below(root, path.absolute(), pattern)
                if match:
                    found.setdefault(_names(match)[0], {}).setdefault(kind, []).append(path)
        if found:
            return [_input(case, kinds, data) for case, kinds in found.items()]
    return []


def _input(case: str, kinds: dict[str, list[Path]], data: DataSettings) -> Input:
    files = tuple(path for paths in kinds.values() for path in paths)
    missing = [m for m in data.modalities if m not in kinds]
    if missing:
        reason = (
            f"{files[0].parent}: {case} has {', '.join(kinds)}, but the run needs "
            f"{', '.join(data.modalities)}: add {', '.join(missing)} ("
            f"{', '.join(data.files.get(m, 'no pattern in data.files') for m in missing)})."
        )
        return broken(case, files, reason)
    double = [paths for paths in kinds.values() if len(paths) > 1]
    if double:
        return broken(case, files, f"{double[0][1]}: fits like {double[0][0]}: keep one.")
    return Input(nifti_source(data, case, [kinds[m][0] for m in data.modalities]))
