"""NIfTI files by the patterns of the run's own data."""

from collections.abc import Sequence
from pathlib import Path

from kerasseg.datasets.inputs.input import Input, broken
from kerasseg.datasets.nifti_patterns import pattern_regex
from kerasseg.datasets.nifti_source import NiftiSource
from kerasseg.settings.data import DataSettings


def nifti_pattern_inputs(
    files: list[Path], paths: Sequence[Path], data: DataSettings
) -> list[Input]:
    """The cases among files by the patterns of `data.files`.

    A pattern counts from the folder in `paths` that was asked for, or from one above it where it
    names folders: a single case's may be asked for, too.
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
            relative = path.absolute().relative_to(root).as_posix()
            for kind, pattern in compiled.items():
                match = pattern.fullmatch(relative)
                if match:
                    found.setdefault(match["case"], {}).setdefault(kind, []).append(path)
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
    images = tuple(kinds[m][0] for m in data.modalities)
    return Input(
        NiftiSource(
            case_id=case,
            patient_id=case,
            modalities=data.modalities,
            images=images,
            segmentation=None,
            label_map=(),
            classes=data.classes,
        )
    )
