"""Predict many cases into files: label maps, probabilities, uncertainty and overlays."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasseg import anatomy
from kerasseg.datasets.case import Input
from kerasseg.datasets.labels import label_ids
from kerasseg.datasets.outputs import OutputFiles, write_label, write_maps
from kerasseg.errors import UserError
from kerasseg.files import make_folder, write_json
from kerasseg.prediction.prediction import CaseSegmenter, Prediction
from kerasseg.progress import track


def draw_prediction(prediction: Prediction, path: Path) -> None:
    """Draw one axial slice: every modality, then the prediction over FLAIR.

    The slice is the one with the most predicted tumour, or the middle one. The first modality takes
    the place of FLAIR where there is no FLAIR.
    """
    # Here, as a client of a server that draws nothing needs no matplotlib.

    from kerasseg.figures.style import label_legend, new_figure, save_figure, show_label, show_slice

    case, label = prediction.case, prediction.label
    areas = (label > 0).sum(axis=(1, 2))
    index = int(areas.argmax()) if areas.any() else label.shape[0] // 2
    names = list(case.modalities)
    figure, axes = new_figure(2.8 * (len(names) + 1), 3.6, 1, len(names) + 1)
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


_SETTING = "--output"
"""The option that error messages name where a file cannot be written."""


def write_prediction(
    prediction: Prediction,
    files: OutputFiles,
    ids: Mapping[int, int],
    *,
    probabilities: bool = False,
    overlay: bool = False,
) -> None:
    """Write the files of a prediction, each in one step, the label last.

    The mask of a picture of binary target is 0 and 255. Maps of entropy and variance are written if
    the prediction has them. Raises `UserError` if a file cannot be written.

    Args:
        ids: canonical label -> the id that is written.
        probabilities: whether the maps of probabilities are written.
        overlay: whether the prediction is drawn.
    """
    grid, target = prediction.case.grid, prediction.target
    for folder in {files.folder, *([files.overlay.parent] if overlay else [])}:
        make_folder(folder, _SETTING)
    maps = [
        (files.probabilities(target), prediction.probabilities if probabilities else None),
        (files.entropy(target), prediction.entropy),
        (files.variance(target), prediction.variance),
    ]
    for paths, values in maps:
        if values is not None:
            write_maps(paths, values, grid, _SETTING, picture=files.picture)
    if overlay:
        draw_prediction(prediction, files.overlay)
    write_label(files, prediction.label, ids, grid, target, _SETTING)


@dataclass(frozen=True)
class OutputOptions:
    """The files that are written of every case.

    Attributes:
        probabilities: whether the maps of probabilities are written.
        uncertainty: whether the maps of entropy and variance are written.
        labels: convention of the label ids, or None for that of the data set.
        overwrite: whether cases that are finished are predicted anew.
    """

    probabilities: bool = False
    uncertainty: bool = False
    labels: str | None = None
    overwrite: bool = False


@dataclass
class Outcome:
    """The outcome of many predictions.

    Attributes:
        written: ids of the cases that were predicted.
        skipped: ids of the cases that were finished before.
        failed: id of a case that failed -> why.
        notes: id of a case that was predicted -> what is odd about its scan.
        stopped: why the other cases were not tried, such as a full disk; None if all were.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    stopped: str | None = None


FILE_NAME = "predictions.json"
_MUST_MATCH = ("networks", "combine", "settings", "labels", "postprocessing")
_SHOWN = {"networks": "runs"}
"""Networks are known by their check sums only, so a message names the runs instead."""


def claim_folder(
    folder: Path, origin: dict[str, Any], labels: Iterable[Path], *, overwrite: bool
) -> dict[str, Any]:
    """Make a folder of predictions if it is missing, and write where they come from into it.

    Returns what `predictions.json` holds now: `origin`, the names of the label files that are
    finished, and the notes on their scans. Raises `UserError` if the folder holds predictions of
    another origin, or one of `labels`, the files to come, without any origin, unless `overwrite`.
    Where every case failed there are none.
    """
    path = folder / FILE_NAME
    there = [label for label in labels if label.exists()]
    finished: list[str] = []
    notes: dict[str, list[str]] = {}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            # An older kerasseg did not write it.
            found.setdefault("postprocessing", origin["postprocessing"])
            other = [key for key in _MUST_MATCH if found.get(key) != origin[key]]
        except (OSError, ValueError, AttributeError):
            other, found = ["runs"], {"runs": "that cannot be read"}
        if not other:  # an older kerasseg wrote no list: what is there is finished
            finished = found.get("finished", [label.name for label in there])
            notes = found.get("notes", {})
        elif not overwrite and any(
            p.name != FILE_NAME and not p.name.startswith(".") for p in folder.iterdir()
        ):
            made = [f"{_SHOWN.get(key, key)} {found.get(_SHOWN.get(key, key))}" for key in other]
            raise UserError(
                f"{folder} holds predictions that were made otherwise (with "
                f"{', '.join(made)}): name another folder with --output, or make them anew with "
                "--overwrite."
            )
    elif there and not overwrite:
        raise UserError(
            f"{there[0]} is there, and no {FILE_NAME} says what made it: name another folder with "
            "--output, or replace it with --overwrite."
        )
    if overwrite:
        finished = sorted(set(finished) - {label.name for label in there})
    claimed = origin | {"finished": finished, "notes": notes}
    make_folder(folder, _SETTING)
    write_json(path, claimed, _SETTING)
    return claimed


def predict_files(
    model: CaseSegmenter,
    inputs: list[Input],
    output: Path,
    origin: dict[str, Any],
    options: OutputOptions = OutputOptions(),
    *,
    overlays: int = 0,
) -> Outcome:
    """Predict cases one after the other and write their files.

    A case that cannot be predicted does not stop the others; a file that cannot be written does.
    Raises `UserError` as `claim_folder` does.

    Args:
        model: what predicts, in this process or on a server.
        inputs: the cases.
        output: folder of the files.
        origin: what the predictions depend on.
        options: what is written. A case whose files are all there is skipped, unless
            `options.overwrite`.
        overlays: how many of the first cases are drawn.
    """
    outcome = Outcome()
    outputs = [OutputFiles(output, case.source.case_id, case.picture) for case in inputs]
    scans = {path.resolve() for case in inputs for path in case.source.files}
    labels = [files.label for files in outputs if files.label.resolve() not in scans]
    claimed = claim_folder(output, origin, labels, overwrite=options.overwrite)
    for number, case in enumerate(track(inputs, len(inputs), "predict")):
        case_id, files, overlay = case.source.case_id, outputs[number], number < overlays
        if files.label.resolve() in scans:
            outcome.failed[case_id] = (
                f"{files.label} is a scan itself, which would be overwritten: name another "
                "folder with --output."
            )
            continue
        if files.label.name in claimed["finished"] and all(
            p.exists() for p in _expected_files(files, model, options, overlay)
        ):
            outcome.skipped.append(case_id)
            continue
        try:
            ids = label_ids(options.labels, model.data, model.target, case.label_ids)
            prediction = model.segment(case.source.load(), uncertainty=options.uncertainty)
        except UserError as error:
            outcome.failed[case_id] = str(error)
            continue
        except Exception as error:  # the other cases are not at fault, whatever it is
            outcome.failed[case_id] = _describe_error(error)
            continue
        try:
            write_prediction(
                prediction, files, ids, probabilities=options.probabilities, overlay=overlay
            )
        except UserError as error:
            outcome.stopped = str(error)
            break
        outcome.written.append(case_id)
        outcome.notes[case_id] = prediction.case.notes
        claimed["finished"] = sorted({*claimed["finished"], files.label.name})
        claimed["notes"].pop(case_id, None)  # of an earlier prediction
        if prediction.case.notes:
            claimed["notes"][case_id] = prediction.case.notes
        write_json(output / FILE_NAME, claimed, _SETTING)
    return outcome


def _expected_files(
    files: OutputFiles, model: CaseSegmenter, options: OutputOptions, overlay: bool
) -> list[Path]:
    result = [files.label]
    if options.probabilities:
        result += files.probabilities(model.target)
    if options.uncertainty:
        result += files.entropy(model.target)
        result += files.variance(model.target) if model.members > 1 else []
    return [*result, files.overlay] if overlay else result


def _describe_error(error: Exception) -> str:
    kind = type(error).__name__
    if isinstance(error, MemoryError) or kind == "ResourceExhaustedError":
        return (
            "memory ran out: try evaluation.window_batch=1, evaluation.device_memory=0, or a "
            "larger machine."
        )
    return f"{kind}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
