"""What a format cannot hold, and why: said before anything is computed."""

from typing import Final, Literal

import keras

from kerasseg.errors import UserError

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
