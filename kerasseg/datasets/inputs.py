"""Finding the cases that are to be predicted in files and folders."""

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasseg.config.base import is_import_path
from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import H5, LAYOUTS, LGG, NIFTI, PICTURES, layout_of
from kerasseg.datasets import brats_h5, lgg
from kerasseg.datasets.case import Input, broken, unique_sources, with_printable_ids
from kerasseg.datasets.folders import files_below
from kerasseg.datasets.nifti_inputs import nifti_inputs
from kerasseg.datasets.pictures import PairSource
from kerasseg.errors import UserError

_COLOURS = ("grey", "red", "green", "blue")
_MASK = "_mask"
_SLICE = re.compile(r"_\d+\.tiff?$", re.IGNORECASE)


def picture_inputs(files: list[Path], paths: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases among pictures, as the modalities of the run demand."""
    colours = set(data.modalities) <= set(_COLOURS)
    return (pair_inputs if colours else slice_inputs)(files, paths, data)


def pair_inputs(files: list[Path], paths: Sequence[Path], data: DataSettings) -> list[Input]:
    """Take each picture by itself; their channels are grey or colours.

    Where `data.pairs.images` is among the folders in `paths`, only pictures in it are taken, and
    never those of `data.pairs.masks` nor <name>_mask beside <name>. Raises `UserError` for a run of
    anything else.
    """
    if files and not set(data.modalities) <= set(_COLOURS):
        raise _refusal(files[0], "grey, or red, green and blue", data)
    return _pictures(files, paths, data)


def slice_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Take TIFF slices as patients of LGG. Raises `UserError` for a run of other modalities."""
    slices = [path for path in files if _SLICE.search(path.name)]
    if files and not slices:
        raise _refusal(files[0], "grey, or red, green and blue", data)
    if slices and not set(data.modalities) <= set(LGG):
        raise _refusal(slices[0], f"{', '.join(LGG)}, if it is a slice of LGG", data)
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


_LABEL_FOLDERS = ("labelsTr", "labelsTs")


def find_inputs(
    paths: Sequence[Path],
    data: DataSettings,
    layout: str | None = None,
    leave_out: Path | None = None,
) -> list[Input]:
    """Find every case in files and folders, at any depth, without opening them.

    Where files of several kinds lie, those of the kind of `data.layout` are taken, else NIfTI
    before HDF5 before pictures. Segmentations are passed over. A mistake in one case makes a broken
    source of it. Returns the inputs, sorted by case id. Raises `UserError` if there is no case at
    all, or there are pictures and `modalities` are not channels of pictures.

    Args:
        paths: Files and folders.
        data: Section `data` of the run that is to predict them: the sources load its `modalities`;
            `files`, `pairs`, `h5_image_channels` and `h5_slices` say how its own files lay.
        layout: A name of `data.layout` but phantom, to be taken instead of guessing it.
        leave_out: A folder that is passed over, such as that of the predictions.
    """
    files = _files(paths, leave_out)
    for suffixes, find in _finders(data, layout):
        found = find([p for p in files if p.name.lower().endswith(suffixes)], paths, data)
        if found:
            return _unique(found)
    where = " ".join(map(str, paths))
    raise UserError(
        f"INPUT: no {layout or 'case'} in {where}, which holds {_describe(files)}: expected NIfTI "
        "files <case>_flair.nii.gz, <case>-t2f.nii.gz or <case>_0000.nii.gz, or 4-D ones; "
        "volume_<id>_slice_<s>.h5; <patient>_<n>.tif; or pictures."
    )


def _finders(data: DataSettings, layout: str | None) -> list[tuple[tuple[str, ...], Any]]:
    """Return suffixes of files and functions that find cases among them, the first to try first."""
    known = [name for name, facts in LAYOUTS.items() if facts.inputs is not None]
    if layout is not None and layout not in known and not is_import_path(layout):
        raise UserError(f"layout is {layout!r}, expected one of {', '.join(known)}.")
    facts = data.facts if layout is None else layout_of(layout)
    own = [] if facts.inputs is None else [(facts.suffixes, facts.function("inputs"))]
    if layout is not None:
        return own
    general = [(NIFTI, nifti_inputs), (H5, h5_inputs), (PICTURES, picture_inputs)]
    general.sort(key=lambda finder: finder[0] != facts.suffixes)
    return general if facts.recognised else [*own, *general]


def h5_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the volumes among slices as Kaggle's BraTS2020 has them."""
    missing = [m for m in data.modalities if m not in data.h5_image_channels]
    sources = brats_h5.volumes_among(files, data, masks=False)
    if not missing:
        return [Input(source) for source in sources]
    reason = (
        f"the slices hold {', '.join(data.h5_image_channels)} (data.h5_image_channels), but the "
        f"run needs {', '.join(data.modalities)}: use another run."
    )
    return [broken(s.case_id, s.files, f"{s.files[0].parent}: {reason}") for s in sources]


def _files(paths: Sequence[Path], leave_out: Path | None) -> list[Path]:
    result: list[Path] = []
    for path in paths:
        if path.is_file():
            result.append(path)
            continue
        for folder, names in files_below(path, "INPUT"):
            inside = folder.relative_to(path).parts
            if not set(inside) & set(_LABEL_FOLDERS):
                result += [folder / name for name in names]
    if leave_out is None:
        return result
    # The folder that is asked for counts, even if it lies in the one that is to be left out.
    without = leave_out.resolve()
    return [path for path in result if without not in path.resolve().parents]


def _unique(inputs: list[Input]) -> list[Input]:
    inputs = [
        dataclasses.replace(found, source=with_printable_ids(found.source)) for found in inputs
    ]
    by_source = {id(found.source): found for found in inputs}
    plain = Input(inputs[0].source)
    return [
        dataclasses.replace(by_source.get(id(source), plain), source=source)
        for source in unique_sources([found.source for found in inputs])
    ]


def _describe(files: Sequence[Any]) -> str:
    if not files:
        return "no file"
    return f"{len(files)} other file(s), such as {files[0].name}"
