"""`dataset.json` of the Medical Segmentation Decathlon and of nnU-Net (v1 and v2)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.labels import label_map_of_names
from kerasseg.errors import UserError

FILE_NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetJson:
    """What the file says: channel number -> canonical modality, label id -> canonical id, and the
    rest as it stands."""

    path: Path
    channels: Mapping[str, int]
    label_map: Mapping[int, int]
    values: Mapping[str, Any]

    def channel(self, modality: str) -> int:
        """The number of a modality's channel. Raises `UserError` if there is none."""
        if modality not in self.channels:
            raise UserError(
                f"{self.path}: has no channel {modality}, only {', '.join(self.channels)}: name "
                "the channels you want in data.modalities."
            )
        return self.channels[modality]


def find_dataset_json(settings: DataSettings) -> Iterator[DatasetJson]:
    """Every dataset.json below `data.root`. Raises `UserError` for one that is not understood."""
    assert settings.root is not None  # checked when the config is read
    for folder, names in files_below(settings.root):
        if FILE_NAME in names:
            yield _read(folder / FILE_NAME, settings)


def nearest_dataset_json(folder: Path, settings: DataSettings) -> DatasetJson | None:
    """The dataset.json in a folder or in one of the two that hold it; None where there is none.

    Raises `UserError` for one that is not understood.
    """
    for place in (folder.absolute(), *folder.absolute().parents[:2]):
        if (place / FILE_NAME).is_file():
            return _read(place / FILE_NAME, settings)
    return None


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
    """v1 {"1": "edema"}; v2 {"edema": 1}, or its regions {"whole tumor": [1, 2, 3], …}."""
    if all(key.lstrip("-").isdigit() for key in labels):
        return label_map_of_names({int(key): str(name) for key, name in labels.items()}, path)
    if any(isinstance(ids, list) for ids in labels.values()):
        return _label_map_of_regions(labels, path)
    return label_map_of_names({int(label): name for name, label in labels.items()}, path)


def _label_map_of_regions(labels: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Whole tumour holds the core, which holds the enhancing tumour."""

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
