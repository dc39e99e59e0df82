"""BraTS as NIfTI: `<case>_flair.nii.gz` up to 2021, `<case>-t2f.nii.gz` from 2023 on."""

import re
from pathlib import Path

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti import nifti_source

_NAME = re.compile(
    r"^(?P<case>.+)[_-](?P<kind>[A-Za-z0-9]+)\.nii(\.gz)?$", re.IGNORECASE | re.DOTALL
)

_SEG = re.compile(r"[_-]seg\.nii", re.IGNORECASE)
_TUMOUR = re.compile(r"tumou?r|lesion|glioma", re.IGNORECASE)


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every case below `data.root`, at any depth. One that lacks a modality is broken."""
    assert settings.root is not None  # checked when the config is read
    return [
        _source(case_id, kinds, folder, settings)
        for folder, names in files_below(settings.root)
        for case_id, kinds in _group(folder, names, settings.modalities).items()
    ]


def _group(
    folder: Path, names: list[str], modalities: tuple[str, ...]
) -> dict[str, dict[str, list[Path]]]:
    """Group the files of one folder by case id and kind (a canonical modality, or 'seg')."""
    groups: dict[str, dict[str, list[Path]]] = {}
    segmentations = []
    for name in names:
        match = _NAME.match(name)
        kind = match["kind"].lower() if match else ""
        kind = anatomy.MODALITY_ALIASES.get(kind, kind)
        if match and (kind in (*anatomy.MODALITIES, *modalities) or kind == "seg"):
            groups.setdefault(match["case"], {}).setdefault(kind, []).append(folder / name)
        elif match and kind.startswith("segm"):
            segmentations.append((match["case"], folder / name))
    if len(groups) == 1:
        ((case, kinds),) = groups.items()
        tumours = [path for name, path in segmentations if _is_of_tumour(name, case)]
        if len(tumours) == 1:
            kinds.setdefault("seg", tumours)
    return {case: kinds for case, kinds in groups.items() if set(kinds) - {"seg"}}


def _is_of_tumour(name: str, case: str) -> bool:
    """Return whether `<name>_segmentation`, beside the scans of `case`, may be that of its tumour.

    It may if the name says so, if it says nothing but the case, or if it is another id, as BraTS
    2020 ships case 355's as W39_1998.09.19_Segm.nii. Data sets have those of the brain and of its
    tissues beside it, such as <case>_brain_segmentation and <case>_wm_segmentation.
    """
    words = name.removeprefix(case).strip("_-")
    other_id = words == name and any(map(str.isdigit, name)) and "brain" not in name.lower()
    return bool(_TUMOUR.search(words)) or not words or other_id


def _source(
    case_id: str, kinds: dict[str, list[Path]], folder: Path, settings: DataSettings
) -> CaseSource:
    files = tuple(path for paths in kinds.values() for path in paths)
    missing = [m for m in settings.modalities if m not in kinds]
    if missing:
        reason = (
            f"{folder}: case {case_id} has no {' and no '.join(missing)} file, only "
            f"{', '.join(p.name for p in files)}: restore it, remove the case, or name the "
            "channels you have in data.modalities."
        )
        return BrokenSource(case_id, case_id, files, reason)
    wanted = {kind: kinds[kind] for kind in (*settings.modalities, "seg") if kind in kinds}
    for kind, paths in wanted.items():
        if len(paths) > 1:
            reason = f"{paths[1]}: {paths[0].name} beside it is {kind} too: keep one."
            return BrokenSource(case_id, case_id, files, reason)
    images = [kinds[m][0] for m in settings.modalities]
    segmentation = kinds["seg"][0] if "seg" in kinds else None
    note = ""
    if segmentation and not _SEG.search(segmentation.name):
        note = f"{segmentation.name} is taken for its segmentation, as the only one in its folder"
    return nifti_source(settings, case_id, images, segmentation, note=note)
