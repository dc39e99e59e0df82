"""One place that knows the formats: their packages, their files, how they are read again.

What a format cannot hold, and why: said before anything is computed.

`Runtime`: a written model, loaded again in the program that it was written for.

The network as a SavedModel of one signature, from which converters start.

LiteRT (TensorFlow Lite): written and read by the parts of it that are in TensorFlow.

What is said where the packages of the extra `formats` are missing.

Files that appear together, when all are whole.

ONNX: written by Keras over tf2onnx, read by onnxruntime.

OpenVINO's intermediate representation: an .xml of the graph and a .bin of the weights.

A written model behind the face of a Keras network, for the one sliding window.
"""

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasseg.errors import UserError, storage_error

Format = Literal["onnx", "openvino", "litert"]
Precision = Literal["float32", "float16", "int8"]

_LITERT_LACKS: Final = ("MaxPooling3D", "AveragePooling3D")
"""Layers without an operation in LiteRT. Convolutions in 3-D, transposed and strided ones and
up-sampling have one, of any size, too."""


def check_format(network: keras.Model, wanted: Format, precision: Precision) -> None:
    """Raise `UserError`, with the reason, where `wanted` cannot hold the network so."""
    if wanted == "openvino" and precision == "int8":
        raise UserError(
            "--format openvino --precision int8 is not offered: OpenVINO quantises with the "
            "package nncf, which kerasseg does not use. Take --format onnx --precision int8, or "
            "--precision float16."
        )
    if wanted == "litert":
        found = sorted({type(layer).__name__ for layer in network.layers} & set(_LITERT_LACKS))
        if found:
            raise UserError(
                f"--format litert cannot hold {network.name}: LiteRT has no operation for its "
                f"{' and '.join(found)} (TensorFlow's own, which the interpreter would have to "
                "bring along, are not used). Take --format onnx or openvino, or a run that was "
                "trained with model.dimensions=2, or with model.downsampling=strided."
            )


@dataclass(frozen=True)
class Runtime:
    """What a file is, as its own runtime sees it.

    name:          of the runtime, with its version
    predict:       patches (B, …, C) float32 -> probabilities (B, …, K) float32
    input, output: names of the tensors
    shape:         of the input; None where any size is taken
    advice:        what whoever runs it has to know; may be empty
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    input: str
    output: str
    shape: tuple[int | None, ...]
    advice: str = ""


INPUT, OUTPUT = "patches", "probabilities"


@contextmanager
def served_graph(network: keras.Model, size: Sequence[int] | None = None) -> Iterator[Path]:
    """Yield the folder of a SavedModel: `patches` of any batch -> `probabilities`.

    They have the `size` ([d,] h, w), or any that the network takes. It is removed afterwards.
    """
    shape = network.inputs[0].shape
    if size is not None:
        shape = (None, *size, shape[-1])
    signature = tf.TensorSpec(shape, tf.float32, name=INPUT)
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve", lambda patches: {OUTPUT: network(patches, training=False)}, [signature]
    )
    with tempfile.TemporaryDirectory(prefix="kerasseg-graph-") as folder:
        archive.write_out(folder, verbose=False)
        yield Path(folder)


def check_litert() -> None:
    """Raise `UserError` if TensorFlow has left it to another package."""
    lite = getattr(tf, "lite", None)
    if not (hasattr(lite, "Interpreter") and hasattr(lite, "TFLiteConverter")):
        raise UserError(
            f"TensorFlow {tf.__version__} has no LiteRT converter and interpreter any more, which "
            "--format litert needs: take --format onnx, or tensorflow==2.21."
        )


def write_litert(
    network: keras.Model, path: Path, precision: Precision, calibration: Sequence[np.ndarray]
) -> None:
    """Write the file `path` (.tflite). Raises `UserError` for an operation that LiteRT lacks.

    float16 is of the weights. calibration: patches (1, …, C), needed for int8, of whose operations
    those without a kernel stay in float32, and so do input and output. Of int8 the size is that of
    the patches: with any size TensorFlow 2.21 finds ranges that are wrong.
    """
    size = calibration[0].shape[1:-1] if precision == "int8" else None
    with served_graph(network, size) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([patch] for patch in calibration)
        try:
            path.write_bytes(converter.convert())
        except OSError:
            raise
        except Exception as error:  # ConverterError, which TensorFlow does not name in public
            raise _refusal(network, error) from error


def read_litert(path: Path) -> Runtime:
    """Load the file on the processor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the package will be another one
        interpreter = tf.lite.Interpreter(model_path=str(path))
    ((name, signature),) = interpreter.get_signature_list().items()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    last: list[Any] = [None]

    def predict(patches: np.ndarray) -> np.ndarray:
        if last[0] != patches.shape:
            interpreter.resize_tensor_input(given["index"], patches.shape)
            interpreter.allocate_tensors()
            last[0] = patches.shape
        interpreter.set_tensor(given["index"], patches)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return Runtime(
        name=f"LiteRT in tensorflow {tf.__version__}",
        predict=predict,
        input=signature["inputs"][0],
        output=signature["outputs"][0],
        shape=tuple(None if size < 0 else int(size) for size in given["shape_signature"]),
        advice=f"The signature is {name}. Resize the input before another batch or size.",
    )


def _refusal(network: keras.Model, error: Exception) -> UserError:
    operations = sorted(set(re.findall(r"'tf\.(\w+)' op", str(error))))
    reason = (
        f"it has no operation for {', '.join(operations)}"
        if operations
        else " ".join(str(error).split())[:300]
    )
    return UserError(
        f"--format litert cannot hold {network.name}: {reason}. Take --format onnx or openvino."
    )


def missing_package(error: ImportError, wanted: str) -> UserError:
    """The sentence for a package that could not be imported; `wanted` is the format."""
    return UserError(
        f"{error.name or error} is missing, which --format {wanted} needs: "
        "pip install 'kerasseg[formats]'."
    )


@contextmanager
def new_files(places: list[Path]) -> Iterator[list[Path]]:
    """Yield a path aside for each of `places`, files or folders in one folder, under its own name.

    They are moved to their places afterwards; on any failure none of them is left. Raises
    `UserError` if a place is taken, and for a full disk.
    """
    parent = places[0].parent
    for place in places:
        if place.exists():
            raise UserError(f"--output: {place} is there already: name another, or remove it.")
    aside = parent / f".incomplete-{places[0].name}-{os.getpid()}"
    moved: list[Path] = []
    try:
        aside.mkdir(parents=True)
        yield [aside / place.name for place in places]
        for place in places:
            (aside / place.name).rename(place)
            moved.append(place)
    except BaseException as error:
        for place in moved:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        if isinstance(error, OSError):
            raise storage_error(error, f"Writing {places[0]}", "--output") from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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


def runtime_network(runtime: Runtime, network: keras.Model) -> keras.Model:
    """A network of the shapes of `network` that computes in `runtime`, for `Predictor`."""
    shape, channels = network.inputs[0].shape, network.outputs[0].shape[-1]
    patches = keras.Input(batch_shape=shape, dtype="float32")
    found = _InRuntime(runtime, channels)(patches)
    return keras.Model(patches, found, name=f"{network.name}_exported")


class _InRuntime(keras.layers.Layer):
    def __init__(self, runtime: Runtime, channels: int) -> None:
        super().__init__(dtype="float32")
        self.runtime = runtime
        self.channels = channels

    def call(self, patches: Any) -> Any:
        found = tf.numpy_function(self.runtime.predict, [patches], tf.float32, stateful=False)
        return tf.ensure_shape(found, self.compute_output_shape(patches.shape))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.channels)


def check_packages(wanted: Format) -> None:
    """Raise `UserError`, saying what to install, where the format's package is missing."""
    {"onnx": check_onnx, "openvino": check_openvino, "litert": check_litert}[wanted]()


def write_model(
    network: keras.Model,
    path: Path,
    wanted: Format,
    precision: Precision,
    calibration: Sequence[np.ndarray],
) -> Runtime:
    """Write `path`, of OpenVINO a new folder with path.name.xml and .bin, and load it again."""
    if wanted == "onnx":
        write_onnx(network, path, precision, calibration)
        return read_onnx(path)
    if wanted == "litert":
        write_litert(network, path, precision, calibration)
        return read_litert(path)
    path.mkdir()
    graph = path / f"{path.name}.xml"
    write_openvino(network, graph, precision)
    return read_openvino(graph)
