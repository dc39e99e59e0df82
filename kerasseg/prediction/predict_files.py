"""Many cases through a model, into files."""

from dataclasses import dataclass, field
from pathlib import Path

from kerasseg.datasets.inputs.input import Input
from kerasseg.datasets.outputs.label_ids import label_ids
from kerasseg.datasets.outputs.output_files import OutputFiles
from kerasseg.errors import UserError
from kerasseg.prediction.segmenter import Segmenter
from kerasseg.prediction.write_prediction import write_prediction
from kerasseg.progress import track


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
