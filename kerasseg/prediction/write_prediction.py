"""A prediction -> its files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from kerasseg.datasets.grid import Grid
from kerasseg.datasets.nifti import write_nifti
from kerasseg.errors import storage_error
from kerasseg.prediction.output_files import OutputFiles
from kerasseg.prediction.prediction import Prediction
from kerasseg.write_aside import write_aside

OPTION = "--output"
"""What would move the files, for messages."""
_WHITE = 255
"""Tumour in a picture of a mask."""


def write_prediction(
    prediction: Prediction,
    files: OutputFiles,
    ids: Mapping[int, int],
    *,
    probabilities: bool = False,
    overlay: bool = False,
) -> None:
    """Write what was asked for, every file in one step, the label last.

    Labels have `ids`, canonical -> own; the mask of a picture of binary target is 0 and 255. Maps
    of entropy and variance are written if the prediction has them.

    Raises `UserError` where a file cannot be written.
    """
    grid, target = prediction.case.grid, prediction.target
    for folder in {files.folder, *([files.overlay.parent] if overlay else [])}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"Making the folder {folder}", OPTION) from error
    if probabilities:
        _write_maps(files.probabilities(target), prediction.probabilities, grid, files.picture)
    if prediction.entropy is not None:
        _write_maps(files.entropy(target), prediction.entropy, grid, files.picture)
    if prediction.variance is not None:
        _write_maps(files.variance(target), prediction.variance, grid, files.picture)
    if overlay:
        from kerasseg.prediction.draw_prediction import draw_prediction

        draw_prediction(prediction, files.overlay)
    if not files.picture:
        prediction.save(files.label, ids)
    elif target == "binary":
        _write_picture(files.label, (prediction.label[0] > 0).astype(np.uint8) * _WHITE)
    else:
        _write_picture(files.label, prediction.own_label(ids)[0])


def _write_maps(paths: list[Path], maps: np.ndarray, grid: Grid, picture: bool) -> None:
    for channel, path in enumerate(paths):
        values = np.ascontiguousarray(maps[..., channel], np.float32)
        if picture:
            _write_picture(path, values[0])
        else:
            write_nifti(path, np.asfortranarray(grid.to_file(values)), grid, OPTION)


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    with write_aside(path, OPTION) as temporary:
        Image.fromarray(pixels).save(temporary)
