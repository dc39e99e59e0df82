"""One place that knows the formats: their packages, their files, how they are read again."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kerasseg.serving.formats.litert_model import check_litert, read_litert, write_litert
from kerasseg.serving.formats.onnx_model import check_onnx, read_onnx, write_onnx
from kerasseg.serving.formats.openvino_model import check_openvino, read_openvino, write_openvino
from kerasseg.serving.formats.refusals import Format, Precision
from kerasseg.serving.formats.runtime import Runtime


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
