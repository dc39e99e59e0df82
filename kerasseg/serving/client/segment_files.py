"""`kerasseg segment`: scans to a server, label files back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasseg import __version__
from kerasseg.datasets.case import Input
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.label_ids import label_ids
from kerasseg.datasets.outputs import OutputFiles
from kerasseg.errors import UserError
from kerasseg.prediction.predict import claim_folder
from kerasseg.prediction.predict_files import (
    Outcome,
    OutputOptions,
    predict_files,
    write_prediction,
)
from kerasseg.serving.client.client import Client

_SUFFIXES = (".nii.gz", ".nii", ".png")


@dataclass(frozen=True)
class _OneFile(OutputFiles):
    """Where the label has a name of its own."""

    path: Path

    @property
    def label(self) -> Path:
        return self.path


def segment_files(
    client: Client,
    paths: Sequence[Path],
    output: Path,
    wanted: OutputOptions = OutputOptions(),  # noqa: B008 (frozen)
    *,
    layout: str | None = None,
    overlays: int = 0,
) -> Outcome:
    """Segment every case below `paths` into `output`, as `kerasseg predict` would.

    output: a folder, or the file (.nii.gz, .nii, .png) of the only case

    Raises `UserError` for what concerns all cases: a server that does not answer, an input without
    a case, several cases for one file, a folder of predictions that were made otherwise.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"INPUT: {path} does not exist (looked from {Path.cwd()}).")
        if path.resolve() == output.resolve():
            raise UserError(f"--output {output} is the input: name another file or folder.")
    suffix = next((end for end in _SUFFIXES if output.name.lower().endswith(end)), "")
    if suffix and not output.is_dir():
        inputs = find_inputs(paths, client.data, layout)
        return _into_file(client, inputs, output, suffix, wanted, overlay=overlays > 0)
    inside = any(path.resolve() in output.resolve().parents for path in paths)
    inputs = find_inputs(paths, client.data, layout, output if inside else None)
    where = f"{client.connection.address}/{client.model}/{client.version or 'newest'}"
    origin = {
        "kerasseg": __version__,
        "runs": [where],
        "networks": [where],
        "combine": "mean",
        "target": client.target,
        "settings": [],
        "labels": wanted.labels,
    }
    claim_folder(output, origin, overwrite=wanted.overwrite)
    return predict_files(client, inputs, output, wanted, overlays=overlays)


def _into_file(
    client: Client,
    inputs: list[Input],
    output: Path,
    suffix: str,
    wanted: OutputOptions,
    *,
    overlay: bool,
) -> Outcome:
    if len(inputs) > 1:
        names = f"{inputs[0].source.case_id} and {inputs[1].source.case_id}"
        raise UserError(
            f"--output {output} is one file, but there are {len(inputs)} cases, such as {names}: "
            "name a folder."
        )
    case = inputs[0]
    if case.picture != (suffix == ".png"):
        expected = ".png, as the input is a picture" if case.picture else ".nii.gz"
        raise UserError(f"--output {output}: expected a file that ends with {expected}.")
    if any(output.resolve() == path.resolve() for path in case.source.files):
        raise UserError(f"--output {output} is the scan itself: name another file.")
    ids = label_ids(wanted.labels, client.data, client.target, case.label_ids)
    prediction = client.segment(case.source.load())
    files = _OneFile(output.parent, output.name[: -len(suffix)], case.picture, output)
    write_prediction(prediction, files, ids, probabilities=wanted.probabilities, overlay=overlay)
    return Outcome(written=[case.source.case_id])
