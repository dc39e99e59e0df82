"""Many cases through a model, into files.

`overlays/<case>.png`: a prediction over its scan.

A prediction -> its files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from kerasseg import anatomy
from kerasseg.datasets.case import Input
from kerasseg.datasets.labels import label_ids
from kerasseg.datasets.outputs import OutputFiles, write_label, write_maps
from kerasseg.errors import UserError, storage_error
from kerasseg.figures.style import label_legend, save_figure, show_label, show_slice
from kerasseg.prediction.prediction import Prediction, Segmenter
from kerasseg.progress import track


def draw_prediction(prediction: Prediction, path: Path) -> None:
    """The axial slice with most predicted tumour, or the middle one: every modality, then the
    prediction over FLAIR, or over the first modality where there is no FLAIR."""
    case, label = prediction.case, prediction.label
    areas = (label > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else label.shape[0] // 2
    names = list(case.modalities)
    figure = Figure(
        figsize=(2.8 * (len(names) + 1), 3.6),
        layout="constrained",
    )
    axes = figure.subplots(1, len(names) + 1)
    aspect = case.spacing[1] / case.spacing[2]
    for channel, name in enumerate(names):
        title = anatomy.MODALITY_TITLES.get(name, name)
        show_slice(axes[channel], case.image[index, ..., channel], title, aspect)
    base = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    show_slice(axes[-1], case.image[index, ..., base], "prediction", aspect)
    show_label(axes[-1], label[index], prediction.target, aspect)
    title = case.case_id
    if label.shape[0] > 1:
        title += f", axial slice {index}"
    if not areas.any():
        title += ", no tumour found"
    figure.suptitle(title, fontsize=11)
    label_legend(figure, prediction.target)
    save_figure(figure, path, "--output")


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
        draw_prediction(prediction, files.overlay)
    write_label(files, prediction.label, ids, grid, target, OPTION)


@dataclass(frozen=True)
class Wanted:
    """What is written besides the labels.

    labels: convention of their ids, or None for the data set's own
    """

    probabilities: bool = False
    uncertainty: bool = False
    labels: str | None = None
    overwrite: bool = False


@dataclass
class Outcome:
    """Case ids that were written, that were there, and that failed, with the reason.

    stopped: why the rest was not tried, such as a full disk
    """

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None


def predict_files(
    model: Segmenter,
    inputs: list[Input],
    output: Path,
    wanted: Wanted = Wanted(),
    *,
    overlays: int = 0,
) -> Outcome:
    """Predict every case and write it into `output`, case by case.

    A case whose files are all there is skipped, unless `wanted.overwrite`. One that cannot be
    predicted does not stop the others; a file that cannot be written does.

    overlays: how many cases are drawn, the first ones
    """
    outcome = Outcome()
    for number, case in enumerate(track(inputs, len(inputs), "predict")):
        case_id = case.source.case_id
        files = OutputFiles(output, case_id, case.picture)
        overlay = number < overlays
        if _is_input(case, files):
            outcome.failed[case_id] = (
                f"{files.label} is the scan itself, which would be overwritten: name another "
                "folder with --output."
            )
            continue
        if not wanted.overwrite and all(p.exists() for p in _files(files, model, wanted, overlay)):
            outcome.skipped.append(case_id)
            continue
        try:
            ids = label_ids(wanted.labels, model.data, model.target, case.label_ids)
            prediction = model.segment(case.source.load(), uncertainty=wanted.uncertainty)
        except UserError as error:
            outcome.failed[case_id] = str(error)
            continue
        except Exception as error:  # whatever it is, the other cases are not at fault
            outcome.failed[case_id] = _words(error)
            continue
        try:
            write_prediction(
                prediction, files, ids, probabilities=wanted.probabilities, overlay=overlay
            )
        except UserError as error:
            outcome.stopped = str(error)
            break
        outcome.written.append(case_id)
    return outcome


def _files(files: OutputFiles, model: Segmenter, wanted: Wanted, overlay: bool) -> list[Path]:
    result = [files.label]
    if wanted.probabilities:
        result += files.probabilities(model.target)
    if wanted.uncertainty:
        result += files.entropy(model.target)
        result += files.variance(model.target) if model.members > 1 else []
    return [*result, files.overlay] if overlay else result


def _is_input(case: Input, files: OutputFiles) -> bool:
    return any(files.label.resolve() == path.resolve() for path in case.source.files)


def _words(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        return (
            "memory ran out: try evaluation.window_batch=1, evaluation.device_memory=0, or a "
            "larger machine."
        )
    return f"{kind}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
