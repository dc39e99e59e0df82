"""Layouts with a dataset.json: the Medical Segmentation Decathlon, and nnU-Net (v1 and v2).

msd:    4-D NIfTI files, named in dataset.json.
nnunet: imagesTr/<case>_0000.nii.gz and so on, labelsTr/<case>.nii.gz.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource, inverse
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.labels import label_map_of_names
from kerasseg.datasets.nifti import nifti_source
from kerasseg.errors import UserError

FILE_NAME = "dataset.json"
_CHANNEL_DIGITS = 4
_BRATS_2023 = re.compile(r"[_-](t1n|t1c|t2w|t2f)\.nii", re.IGNORECASE)
_IDS_2023 = {i: i for i in anatomy.LABELS}
_ANY_MAP = {i: i for i in anatomy.LABELS}


@dataclass(frozen=True)
class DatasetJson:
    """The contents of a dataset.json.

    channels:  canonical modality -> channel number
    label_map: the files' label ids -> canonical ids
    values:    the whole file as it stands
    """

    path: Path
    channels: Mapping[str, int]
    label_map: Mapping[int, int]
    values: Mapping[str, Any]

    def channel(self, modality: str) -> int:
        """Return the number of a modality's channel. Raises `UserError` if there is none."""
        if modality not in self.channels:
            raise UserError(
                f"{self.path}: has no channel {modality}, only {', '.join(self.channels)}: name "
                "the channels you want in data.modalities."
            )
        return self.channels[modality]


def discover_msd(settings: DataSettings) -> list[CaseSource]:
    """Find the training cases of every dataset.json of the Decathlon below `data.root`.

    A case whose files are not there is broken. Raises `UserError` for a modality that
    dataset.json does not know.
    """
    found = find_dataset_json(settings)
    return [source for description in found for source in _msd_cases(description, settings)]


def discover_nnunet(settings: DataSettings) -> list[CaseSource]:
    """Find the training cases beside every dataset.json of nnU-Net below `data.root`.

    A case without one of its channels or its segmentation is broken. Raises `UserError` for a
    modality that dataset.json does not know.
    """
    found = find_dataset_json(settings)
    return [source for description in found for source in _nnunet_cases(description, settings)]


def find_dataset_json(settings: DataSettings) -> Iterator[DatasetJson]:
    """Yield every dataset.json below `data.root`. Raises `UserError` for one it cannot read."""
    assert settings.root is not None  # checked when the config is read
    for folder, names in files_below(settings.root):
        if FILE_NAME in names:
            yield _read(folder / FILE_NAME, settings)


def nearest_dataset_json(folder: Path, settings: DataSettings) -> DatasetJson | None:
    """Read the dataset.json in a folder or in one of the two above it; None where there is none.

    Raises `UserError` for one that is not understood.
    """
    for place in (folder.absolute(), *folder.absolute().parents[:2]):
        if (place / FILE_NAME).is_file():
            return _read(place / FILE_NAME, settings)
    return None


def read_label_ids(files: Sequence[Path], data: DataSettings) -> Mapping[int, int] | None:
    """Find out which label ids the files of a case use.

    The names of BraTS 2023 tell it, or a dataset.json near the files, which need not be there any
    more.

    Returns:
        Canonical id -> the data set's own id, or None where the files do not tell.
    """
    if data.layout == "brats_nifti":
        return label_ids_of_names(files)
    if data.layout in ("msd", "nnunet") and files:
        return description_beside(files[0].parent, data)[1]
    return None


def label_ids_of_names(files: Sequence[Path]) -> Mapping[int, int] | None:
    """Return the label ids of files that are named as in BraTS 2023, and None for other files."""
    return _IDS_2023 if any(_BRATS_2023.search(path.name) for path in files) else None


def description_beside(
    folder: Path, data: DataSettings
) -> tuple[DatasetJson | None, Mapping[int, int] | None]:
    """Return the dataset.json near a folder, and its label ids if they are understood."""
    try:
        found = nearest_dataset_json(folder, data.model_copy(update={"label_map": None}))
    except UserError:
        # Without labels a prediction is still possible; any other mistake is raised here.
        return nearest_dataset_json(folder, data.model_copy(update={"label_map": _ANY_MAP})), None
    return found, inverse(found.label_map) if found else None


def _msd_cases(description: DatasetJson, settings: DataSettings) -> list[CaseSource]:
    channels = tuple(description.channel(m) for m in settings.modalities)
    folder = description.path.parent
    listed = description.values.get("training", [])
    cases: list[CaseSource] = []
    for entry in listed:
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise UserError(
                f"{description.path}: each of `training` must name an image and a label, found "
                f"{str(entry)[:80]!r}."
            )
        image, label = folder / entry["image"], folder / entry["label"]
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        missing = [str(path) for path in (image, label) if not path.exists()]
        if missing:
            reason = f"{description.path}: names {' and '.join(missing)}, which does not exist: "
            reason += "restore the file, or remove the case from dataset.json."
            cases.append(BrokenSource(name, name, (image, label), reason))
            continue
        ids = description.label_map
        cases.append(nifti_source(settings, name, [image], label, label_map=ids, channels=channels))
    return cases


def _nnunet_cases(description: DatasetJson, settings: DataSettings) -> list[CaseSource]:
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
        scans = [files[number] for number in channels]
        ids = description.label_map
        cases.append(nifti_source(settings, case_id, scans, label, label_map=ids))
    return cases


def _listed(description: DatasetJson, ending: str) -> list[str]:
    """Return the cases that dataset.json names, in v1 under `training`, in v2 under `dataset`."""
    values: Any = description.values
    training = values.get("training", [])
    names = [
        Path(str(entry["image"])).name.removesuffix(ending)
        for entry in (training if isinstance(training, list) else [])
        if isinstance(entry, dict) and "image" in entry
    ]
    return names + list(values.get("dataset") or {})


def _read(path: Path, settings: DataSettings) -> DatasetJson:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}.") from None
    try:
        named = values["channel_names"] if "channel_names" in values else values["modality"]
        channels = {_canonical(str(name)): int(number) for number, name in named.items()}
        label_map = settings.label_map or _label_map(values["labels"], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: is no dataset.json of the Medical Segmentation Decathlon or nnU-Net: "
            f"expected channel_names (or modality) and labels ({type(error).__name__}: {error})."
        ) from None
    return DatasetJson(path, channels, label_map, values)


def _canonical(name: str) -> str:
    name = "".join(c for c in name.lower() if c.isalnum())
    return anatomy.MODALITY_ALIASES.get(name, name)


def _label_map(labels: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Read labels as v1 writes them, {"1": "edema"}, or v2, {"edema": 1} or with regions of
    several ids, {"whole tumor": [1, 2, 3], …}."""
    if all(key.lstrip("-").isdigit() for key in labels):
        return label_map_of_names({int(key): str(name) for key, name in labels.items()}, path)
    if any(isinstance(ids, list) for ids in labels.values()):
        return _label_map_of_regions(labels, path)
    return label_map_of_names({int(label): name for name, label in labels.items()}, path)


def _label_map_of_regions(labels: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Make a label map of regions: whole tumour holds the core, which holds enhancing tumour."""

    def ids(word: str) -> set[int]:
        for name, value in labels.items():
            if word in name.lower():
                return set(value) if isinstance(value, list) else {value}
        raise UserError(
            f"{path}: its labels are regions, but none is called {word!r}: say what each id is in "
            "data.label_map."
        )

    whole, core, enhancing = ids("whole"), ids("core"), ids("enhancing")
    result = dict.fromkeys(whole - core, anatomy.ED)
    result |= dict.fromkeys(core - enhancing, anatomy.NCR)
    return {0: 0, **result, **dict.fromkeys(enhancing, anatomy.ET)}
