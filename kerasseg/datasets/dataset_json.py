"""Layouts with a dataset.json: the Medical Segmentation Decathlon, and nnU-Net (v1 and v2).

msd:    4-D NIfTI files, named in dataset.json.
nnunet: imagesTr/<case>_0000.nii.gz and so on, labelsTr/<case>.nii.gz.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource, inverse
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.labels import is_named_as_2023, label_map_of_names
from kerasseg.datasets.nifti import nifti_source
from kerasseg.errors import UserError

FILE_NAME = "dataset.json"
_CHANNEL_DIGITS = 4
_CHANNEL_NAMES = {
    **{name: name for name in anatomy.MODALITIES},
    **anatomy.MODALITY_ALIASES,
    **dict.fromkeys(("t1weighted", "t1pre", "t1precontrast"), anatomy.T1),
    **dict.fromkeys(("t1post", "t1postcontrast", "t1contrast", "t1wce", "ct1"), anatomy.T1CE),
    **dict.fromkeys(("t2weighted",), anatomy.T2),
    **dict.fromkeys(("t2flair", "t2wflair", "flairw"), anatomy.FLAIR),
}
"""Further names of modalities, which only stand in a dataset.json."""
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
            found = _read(folder / FILE_NAME, settings)
            if settings.channels and settings.channels != found.channels:
                raise UserError(
                    f"{found.path}: numbers the channels {dict(found.channels)}, but data.channels "
                    f"is {settings.channels}: leave data.channels out, or correct one of them."
                )
            yield found


def nearest_dataset_json(folder: Path, settings: DataSettings) -> DatasetJson | None:
    """Read the dataset.json in a folder or in one of the two above it; None where there is none.

    Raises `UserError` for one that is not understood.
    """
    for place in (folder.absolute(), *folder.absolute().parents[:2]):
        if (place / FILE_NAME).is_file():
            return _read(place / FILE_NAME, settings)
    return None


def named_channels(data: DataSettings) -> Mapping[str, int]:
    """Return the number of each channel in the data of msd and nnunet, by their dataset.json.

    What `data.channels` says goes before. It is empty where the files are gone, or several
    dataset.json disagree.
    """
    gone = data.root is None or not data.root.is_dir()
    if data.channels or data.facts.label_map != {} or gone:
        return data.channels
    found = [dict(description.channels) for description in find_dataset_json(data)]
    alike = len(found) > 0 and all(each == found[0] for each in found)
    # A name that no setting may have cannot be written into a config.
    return found[0] if alike and all(name and name.isascii() for name in found[0]) else {}


def read_label_ids(files: Sequence[Path], data: DataSettings) -> Mapping[int, int] | None:
    """Find out which label ids the files of a case use.

    The names of BraTS 2023 tell it, or a dataset.json near the files, which need not be there any
    more. Returns canonical id -> the data set's own id, or None where the files do not tell.
    """
    if data.facts.label_ids is None:
        return None
    found: Mapping[int, int] | None = data.facts.function("label_ids")(files, data)
    return found


def label_ids_beside(files: Sequence[Path], data: DataSettings) -> Mapping[int, int] | None:
    """Return the label ids of a dataset.json near the files, and None where there is none."""
    return description_beside(files[0].parent, data)[1] if files else None


def label_ids_of_names(files: Sequence[Path], _: DataSettings) -> Mapping[int, int] | None:
    """Return the label ids of files that are named as in BraTS 2023, and None for other files."""
    return anatomy.BRATS_2023_LABEL_MAP if is_named_as_2023(files) else None


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
    channels = [description.channel(m) for m in settings.modalities]
    count = len(description.channels)
    folder = description.path.parent
    listed = description.values.get("training") or []
    cases: list[CaseSource] = []
    for entry in listed:
        images, label_name = _paths_of(entry, "image")
        if not images or label_name is None or len(images) not in (1, count):
            raise UserError(
                f"{description.path}: each of `training` must name an image, or a list of "
                f"{count} for {', '.join(description.channels)}, and a label, found "
                f"{str(entry)[:80]!r}."
            )
        files, label = [folder / name for name in images], folder / label_name
        name = (label if len(files) > 1 else files[0]).name.removesuffix(".gz").removesuffix(".nii")
        missing = [str(path) for path in (*files, label) if not path.exists()]
        if missing:
            reason = f"{description.path}: names {' and '.join(missing)}, which does not exist: "
            reason += "restore the file, or remove the case from dataset.json."
            cases.append(BrokenSource(name, name, (*files, label), reason))
            continue
        ids = description.label_map
        if len(files) == count:
            scans = [files[number] for number in channels]
            cases.append(nifti_source(settings, name, scans, label, label_map=ids))
        else:
            stack = (tuple(channels), count)
            cases.append(nifti_source(settings, name, files, label, label_map=ids, stack=stack))
    return cases


def _paths_of(entry: Any, key: str) -> tuple[list[str], str | None]:
    """Return the names of an entry's images, one or several, and that of its label."""
    values = entry if isinstance(entry, dict) else {}
    images = values.get(key)
    images = images if isinstance(images, list) else [images]
    # nnU-Net, too, expands $nnUNet_raw; Windows writes backslashes.
    *names, label = (
        os.path.expandvars(name.replace("\\", "/")) if isinstance(name, str) else ""
        for name in (*images, values.get("label"))
    )
    return names if all(names) else [], label or None


def _nnunet_cases(description: DatasetJson, settings: DataSettings) -> list[CaseSource]:
    channels = [description.channel(m) for m in settings.modalities]
    folder = description.path.parent
    ending = str(description.values.get("file_ending", ".nii.gz"))
    images: dict[str, dict[int, Path]] = {}
    doubles: dict[str, str] = {}
    if (folder / "imagesTr").is_dir():
        for below, names in files_below(folder / "imagesTr"):
            for name in names:
                case_id, _, number = name.removesuffix(ending).rpartition("_")
                if name.endswith(ending) and len(number) == _CHANNEL_DIGITS and number.isdigit():
                    first = images.setdefault(case_id, {}).setdefault(int(number), below / name)
                    if first != below / name:
                        doubles[case_id] = (
                            f"{below / name}: is the same channel as {first}: keep one."
                        )
    for case_id in _listed(description, ending):
        images.setdefault(case_id, {})
    listed = description.values.get("dataset") or {}
    cases: list[CaseSource] = []
    for case_id, numbered in images.items():
        files = numbered
        label = folder / "labelsTr" / f"{case_id}{ending}"
        wanted = [folder / "imagesTr" / f"{case_id}_{number:04d}{ending}" for number in channels]
        named, label_name = _paths_of(listed.get(case_id), "images")
        if named and label_name:
            # nnU-Net lets a data set lie anywhere if dataset.json names all of its files.
            label, places = folder / label_name, dict(enumerate(folder / name for name in named))
            files = {number: path for number, path in places.items() if path.exists()}
            wanted = [places.get(number, description.path) for number in channels]
        elif case_id in doubles:
            found = tuple(numbered.values())
            cases.append(BrokenSource(case_id, case_id, found, doubles[case_id]))
            continue
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
    training, dataset = values.get("training", []), values.get("dataset") or {}
    if not isinstance(dataset, dict):
        raise UserError(
            f"{description.path}: `dataset` must hold the images and the label of each case under "
            f"its name, found {str(dataset)[:80]!r}."
        )
    images = [
        _paths_of(entry, "image")[0] for entry in (training if isinstance(training, list) else [])
    ]
    return [Path(names[0]).name.removesuffix(ending) for names in images if names] + list(dataset)


def _read(path: Path, settings: DataSettings) -> DatasetJson:
    try:
        # From bytes, as Windows's programs begin a file with a byte order mark, or write UTF-16.
        values = json.loads(path.read_bytes(), object_pairs_hook=_without_doubles)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}.") from None
    try:
        named = values["channel_names"] if "channel_names" in values else values["modality"]
        pairs = enumerate(named) if isinstance(named, list) else named.items()
        numbers = _without_doubles([(_canonical(str(name)), int(n)) for n, name in pairs])
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError(
                f"its channels have the numbers {', '.join(map(str, named))}, not 0, 1 …"
            )
        label_map = settings.label_map or _label_map(values["labels"], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: is no dataset.json of the Medical Segmentation Decathlon or nnU-Net: "
            f"expected channel_names (or modality) and labels ({type(error).__name__}: {error})."
        ) from None
    channels = dict(sorted(numbers.items(), key=lambda item: item[1]))
    return DatasetJson(path, channels, label_map, values)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary. Raises `ValueError` for a name that occurs twice: one would be lost."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double!r} occurs twice")
    return result


def _canonical(name: str) -> str:
    name = "".join(c for c in name.lower() if c.isalnum())
    return _CHANNEL_NAMES.get(name.removeprefix("mr"), name)


def _label_map(labels: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Read labels as v1 writes them, {"1": "edema"}, or v2, {"edema": 1} or with regions of
    several ids, {"whole tumor": [1, 2, 3], …}."""
    if all(key.lstrip("-").isdigit() for key in labels):
        return label_map_of_names({int(key): str(name) for key, name in labels.items()}, path)
    if any(isinstance(ids, list) for ids in labels.values()):
        return _label_map_of_regions(labels, path)
    names = _without_doubles([(str(int(label)), name) for name, label in labels.items()])
    return label_map_of_names({int(label): name for label, name in names.items()}, path)


def _label_map_of_regions(labels: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Make a label map of regions: whole tumour holds the core, which holds enhancing tumour."""

    def ids(word: str, short: str) -> set[int]:
        pattern = re.compile(rf"(?<!non[- _])(?<!non){word}|\b{short}\b", re.IGNORECASE)
        for name, value in labels.items():
            if pattern.search(name):
                return set(map(int, value if isinstance(value, list) else [value]))
        raise UserError(
            f"{path}: its labels are regions, but none is called {word!r} or {short}: say what "
            "each id is in data.label_map."
        )

    whole, core, enhancing = ids("whole", "WT"), ids("core", "TC"), ids("enhancing", "ET")
    if not enhancing <= core <= whole:
        raise UserError(
            f"{path}: its labels are regions that do not lie within each other: whole tumour is "
            f"{sorted(whole)}, the core {sorted(core)}, enhancing {sorted(enhancing)}: say what "
            "each id is in data.label_map."
        )
    result = dict.fromkeys(whole - core, anatomy.ED)
    result |= dict.fromkeys(core - enhancing, anatomy.NCR)
    return {0: 0, **result, **dict.fromkeys(enhancing, anatomy.ET)}
