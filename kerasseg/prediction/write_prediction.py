"""A prediction -> its files."""

from collections.abc import Mapping

from kerasseg.datasets.outputs.output_files import OutputFiles
from kerasseg.datasets.outputs.write_label import write_label
from kerasseg.datasets.outputs.write_maps import write_maps
from kerasseg.errors import storage_error
from kerasseg.prediction.prediction import Prediction

OPTION = "--output"
"""What would move the files, for messages."""


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
    maps = [
        (files.probabilities(target), prediction.probabilities if probabilities else None),
        (files.entropy(target), prediction.entropy),
        (files.variance(target), prediction.variance),
    ]
    for paths, values in maps:
        if values is not None:
            write_maps(paths, values, grid, OPTION, picture=files.picture)
    if overlay:
        from kerasseg.prediction.draw_prediction import draw_prediction

        draw_prediction(prediction, files.overlay)
    write_label(files, prediction.label, ids, grid, target, OPTION)
