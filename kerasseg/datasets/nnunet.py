"""nnU-Net's raw layout: imagesTr/<case>_0000.nii.gz …, labelsTr/<case>.nii.gz, dataset.json."""

from pathlib import Path
from typing import Any

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource
from kerasseg.datasets.dataset_json import DatasetJson, find_dataset_json
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti import NiftiSource, label_pairs

_CHANNEL_DIGITS = 4


def discover(settings: DataSettings) -> list[CaseSource]:
    """The training cases beside every dataset.json below `data.root`.

    A case without one of its channels or its segmentation is broken. Raises `UserError` for a
    modality that dataset.json does not know.
    """
    return [
        source
        for description in find_dataset_json(settings)
        for source in _cases(description, settings)
    ]


def _cases(description: DatasetJson, settings: DataSettings) -> list[CaseSource]:
    channels = [description.channel(m) for m in settings.modalities]
    folder = description.path.parent
    ending = str(description.values.get("file_ending", ".nii.gz"))
    images: dict[str, dict[int, Path]] = {}
    if (folder / "imagesTr").is_dir():
        for below, names in files_below(folder / "imagesTr"):
            for name in names:
                case_id, _, number = name.removesuffix(ending).rpartition("_")
                if name.endswith(ending) and len(number) == _CHANNEL_DIGITS and number.isdigit():
                    images.setdefault(case_id, {})[int(number)] = below / name
    for case_id in _listed(description, ending):
        images.setdefault(case_id, {})
    cases: list[CaseSource] = []
    for case_id, files in images.items():
        label = folder / "labelsTr" / f"{case_id}{ending}"
        wanted = [folder / "imagesTr" / f"{case_id}_{number:04d}{ending}" for number in channels]
        missing = [
            str(path) for n, path in zip(channels, wanted, strict=True) if n not in files
        ] + ([] if label.exists() else [str(label)])
        if missing:
            reason = f"case {case_id} of {description.path} lacks {' and '.join(missing)}: restore "
            reason += "the file, or remove the case."
            present = tuple(files.values()) or (description.path,)
            cases.append(BrokenSource(case_id, case_id, present, reason))
            continue
        cases.append(
            NiftiSource(
                case_id=case_id,
                patient_id=case_id,
                modalities=settings.modalities,
                images=tuple(files[number] for number in channels),
                segmentation=label,
                label_map=label_pairs(description.label_map),
                classes=settings.classes,
            )
        )
    return cases


def _listed(description: DatasetJson, ending: str) -> list[str]:
    """Cases that dataset.json names: v1 lists them in `training`, v2 may in `dataset`."""
    values: Any = description.values
    training = values.get("training", [])
    names = [
        Path(str(entry["image"])).name.removesuffix(ending)
        for entry in (training if isinstance(training, list) else [])
        if isinstance(entry, dict) and "image" in entry
    ]
    return names + list(values.get("dataset") or {})
