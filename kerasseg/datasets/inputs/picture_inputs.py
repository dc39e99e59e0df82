"""Pictures: each a case of its own, or the slices of Kaggle's LGG."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from kerasseg.datasets import lgg
from kerasseg.datasets.image_pairs import PairSource
from kerasseg.datasets.inputs.input import Input
from kerasseg.errors import UserError
from kerasseg.settings.data import DEFAULT_MODALITIES, DataSettings

_COLOURS = ("grey", "red", "green", "blue")
_MASK = "_mask"
_SLICE = re.compile(r"_\d+\.tiff?$", re.IGNORECASE)


def picture_inputs(
    files: list[Path], paths: Sequence[Path], data: DataSettings, layout: str | None = None
) -> list[Input]:
    """The cases among pictures.

    A run of grey values or colours takes each picture by itself; where `data.pairs.images` is
    among the folders in `paths`, only pictures in it, and never those of `data.pairs.masks` nor
    <name>_mask beside <name>. A run of t1, flair and t1ce takes TIFF slices as patients of LGG.
    Raises `UserError` for a run of anything else.
    """
    if not files:
        return []
    colours = set(data.modalities) <= set(_COLOURS)
    if colours and layout != "lgg":
        return _pictures(files, paths, data)
    slices = [path for path in files if _SLICE.search(path.name)]
    if layout == "image_pairs" or not slices:
        raise _refusal(files[0], "grey, or red, green and blue", data)
    if not set(data.modalities) <= set(DEFAULT_MODALITIES["lgg"]):
        channels = ", ".join(DEFAULT_MODALITIES["lgg"])
        raise _refusal(slices[0], f"{channels}, if it is a slice of LGG", data)
    return [Input(source) for source in lgg.patients_among(slices, data, {}, masks=False)]


def _refusal(path: Path, holds: str, data: DataSettings) -> UserError:
    return UserError(
        f"{path} is a picture, whose channels are {holds}, but the run needs "
        f"{', '.join(data.modalities)}: give scans with these modalities, or use a run that was "
        "trained on pictures."
    )


def _pictures(files: list[Path], paths: Sequence[Path], data: DataSettings) -> list[Input]:
    pairs, result = data.pairs, []
    stems = {path.with_suffix("") for path in files}
    for root in paths:
        folder = root if root.is_dir() else root.parent
        images, masks = folder / pairs.images, folder / pairs.masks
        start = images if images.is_dir() and root.is_dir() else folder
        for path in files:
            mine = start in path.parents if root.is_dir() else path == root
            if not mine or (images != masks and masks in path.parents):
                continue
            plain = path.with_suffix("")
            if plain.name.endswith(_MASK) and plain.with_name(plain.name[: -len(_MASK)]) in stems:
                continue
            stem = plain.relative_to(start).as_posix()
            stem = unicodedata.normalize("NFC", stem)
            if pairs.mask_suffix and stem.endswith(pairs.mask_suffix):
                continue
            case = stem.replace("/", "_")
            source = PairSource(case, case, path, None, data.modalities, None)
            result.append(Input(source, picture=True))
    return result
