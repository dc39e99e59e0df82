"""Where a patch model and its JSON are written."""

from pathlib import Path
from typing import Final

from kerasseg.errors import UserError
from kerasseg.serving.formats.refusals import Format

_SUFFIXES: Final = {"onnx": ".onnx", "litert": ".tflite", "openvino": ""}


def output_paths(output: Path, wanted: Format) -> list[Path]:
    """The model, of OpenVINO a folder, and NAME.json beside it.

    Raises `UserError` for a name that does not fit the format.
    """
    suffix = _SUFFIXES[wanted]
    if output.suffix != suffix or not output.name:
        shape = f"models/NAME{suffix}" if suffix else "a folder models/NAME, without a dot"
        raise UserError(f"--output {output}: --format {wanted} is written to {shape}.")
    for path in output.parents:
        if path.exists() and not path.is_dir():
            raise UserError(f"--output {output}: {path} is a file; name another place.")
    return [output, output.with_suffix(".json")]
