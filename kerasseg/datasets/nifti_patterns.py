"""Any NIfTI layout: a pattern per modality, `{case}` where the case's name stands."""

import re
from pathlib import Path

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti import NiftiSource, label_pairs

_SEGMENTATION = "segmentation"
_TOKEN = re.compile(r"\{case\}|\*\*/|\*|\?")


def discover(settings: DataSettings) -> list[CaseSource]:
    """Every case that a pattern of `data.files` finds. One that lacks a modality is broken."""
    assert settings.root is not None  # checked when the config is read
    patterns = {m: settings.files[m] for m in settings.modalities}
    if settings.segmentation is not None:
        patterns[_SEGMENTATION] = settings.segmentation
    compiled = {kind: pattern_regex(pattern) for kind, pattern in patterns.items()}
    found: dict[str, dict[str, list[Path]]] = {}
    for folder, names in files_below(settings.root):
        for name in names:
            path = folder / name
            relative = path.relative_to(settings.root).as_posix()
            for kind, pattern in compiled.items():
                match = pattern.fullmatch(relative)
                if match:
                    found.setdefault(match["case"], {}).setdefault(kind, []).append(path)
    return [
        _source(case_id, kinds, patterns, settings)
        for case_id, kinds in found.items()
        if set(kinds) - {_SEGMENTATION}
    ]


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression over the path below `data.root`.

    `*` and `?` stay within one folder's name, `**/` is any number of folders, and a second
    `{case}` is the same name again.
    """
    parts, end, seen = [], 0, False
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : token.start()]))
        end = token.end()
        if token[0] == "{case}":
            parts.append("(?P=case)" if seen else "(?P<case>[^/]+)")
            seen = True
        else:
            parts.append({"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}[token[0]])
    return re.compile("".join(parts) + re.escape(pattern[end:]))


def _source(
    case_id: str, kinds: dict[str, list[Path]], patterns: dict[str, str], settings: DataSettings
) -> CaseSource:
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
    return NiftiSource(
        case_id=case_id,
        patient_id=case_id,
        modalities=settings.modalities,
        images=tuple(kinds[m][0] for m in settings.modalities),
        segmentation=kinds[_SEGMENTATION][0] if _SEGMENTATION in kinds else None,
        label_map=label_pairs(settings.label_map or anatomy.BRATS_LABEL_MAP),
        classes=settings.classes,
    )
