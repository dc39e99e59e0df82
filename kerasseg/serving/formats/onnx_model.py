"""ONNX: written by Keras over tf2onnx, read by onnxruntime."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError
from kerasseg.serving.formats.missing_package import missing_package
from kerasseg.serving.formats.refusals import Precision
from kerasseg.serving.formats.runtime import Runtime
from kerasseg.serving.formats.served_graph import INPUT, OUTPUT

QUANTISED = ("Conv", "ConvTranspose")
"""Operations in int8. The sums of a normalisation over a whole patch stay in float32: in int8
they spoil every probability."""


def check_onnx() -> None:
    """Raise `UserError` if a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise missing_package(error, "onnx") from error


def write_onnx(
    network: keras.Model, path: Path, precision: Precision, calibration: Sequence[np.ndarray]
) -> None:
    """Write the file `path`.

    calibration: patches (1, …, C), needed for int8: activations are quantised statically by their
                 ranges there, and both stand in the file as QuantizeLinear / DequantizeLinear
    """
    signature = [tf.TensorSpec(network.inputs[0].shape, tf.float32, name=INPUT)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Keras's patch of tf2onnx
        network.export(str(path), format="onnx", input_signature=signature, verbose=False)
    _name_output(path)
    if precision == "float16":
        _to_float16(path)
    if precision == "int8":
        _to_int8(path, calibration)


def read_onnx(path: Path) -> Runtime:
    """Load the file on the processor."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    return Runtime(
        name=f"onnxruntime {onnxruntime.__version__}",
        predict=lambda patches: session.run(None, {given.name: patches})[0],
        input=given.name,
        output=found.name,
        shape=tuple(size if isinstance(size, int) else None for size in given.shape),
    )


def _name_output(path: Path) -> None:
    """Give the output its name; tf2onnx calls it Identity:0."""
    import onnx

    model = onnx.load(path)
    (found,) = model.graph.output
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == found.name else name for name in names]
    found.name = OUTPUT
    onnx.save(model, path)


def _to_float16(path: Path) -> None:
    import onnx

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise UserError(
            f"--precision float16 is not to be had here: this onnxruntime lacks {error.name}: "
            "pip install -U onnxruntime, or take --precision float32."
        ) from error
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def _to_int8(path: Path, calibration: Sequence[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    given = read_onnx(path).input

    class Patches(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            patch = next(self.left, None)
            return None if patch is None else {given: patch}

    whole = path.with_name(f"float32-{path.name}")
    path.rename(whole)
    quantize_static(
        str(whole),
        str(path),
        Patches(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=list(QUANTISED),
    )
    whole.unlink()
