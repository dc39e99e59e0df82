"""OpenVINO's intermediate representation: an .xml of the graph and a .bin of the weights."""

from pathlib import Path

import keras
import numpy as np

from kerasseg.serving.formats.missing_package import missing_package
from kerasseg.serving.formats.refusals import Precision
from kerasseg.serving.formats.runtime import Runtime
from kerasseg.serving.formats.served_graph import INPUT, OUTPUT, served_graph

ADVICE = (
    'Compile it with {"INFERENCE_PRECISION_HINT": "f32"}: OpenVINO itself chooses bfloat16 on '
    "processors that have it, which changes the probabilities."
)


def check_openvino() -> None:
    """Raise `UserError` if the package is missing."""
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise missing_package(error, "openvino") from error


def write_openvino(network: keras.Model, path: Path, precision: Precision) -> None:
    """Write `path` (.xml) and the .bin beside it; float16 is of the weights."""
    import openvino

    with served_graph(network) as folder:
        model = openvino.convert_model(str(folder))
        openvino.save_model(model, str(path), compress_to_fp16=precision == "float16")


def read_openvino(path: Path) -> Runtime:
    """Load the model on the processor, computing in float32."""
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", hint)

    def predict(patches: np.ndarray) -> np.ndarray:
        return np.array(compiled(patches)[0])

    sizes = compiled.input(0).get_partial_shape()
    return Runtime(
        name=f"openvino {openvino.__version__.split('-')[0]}",
        predict=predict,
        input=INPUT,
        output=OUTPUT,
        shape=tuple(None if size.is_dynamic else size.get_length() for size in sizes),
        advice=ADVICE,
    )
