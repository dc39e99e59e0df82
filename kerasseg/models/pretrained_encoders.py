"""The encoders of keras.applications, and where a decoder is joined to them."""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import keras


class PretrainedEncoder(NamedTuple):
    """A network of keras.applications.

    `skips` are the layers at 1/2, 1/4, 1/8 and 1/16 of the resolution: of each the last before
    the next downsampling. What the network ends in, without its top, is at 1/32.
    """

    title: str
    constructor: Callable[..., keras.Model]
    skips: tuple[str, str, str, str]
    options: Mapping[str, Any] = MappingProxyType({})

    def build(self, **arguments: Any) -> keras.Model:
        """The network without its top; `arguments` are the constructor's."""
        with warnings.catch_warnings():
            # It warns of any channel count but 1 and 3: MRI has as many as there are modalities.
            warnings.filterwarnings("ignore", message="This model usually expects")
            return self.constructor(include_top=False, **self.options, **arguments)


_NO_PREPROCESSING: Final = MappingProxyType({"include_preprocessing": False})
"""Scans are z-scores already; what would be rescaled away here are grey values of 0..255."""

PRETRAINED_ENCODERS: Final = MappingProxyType(
    {
        # He et al. 2016, arXiv:1603.05027
        "resnet50v2": PretrainedEncoder(
            "ResNet50V2",
            keras.applications.ResNet50V2,
            ("conv1_conv", "conv2_block3_1_relu", "conv3_block4_1_relu", "conv4_block6_1_relu"),
        ),
        # Tan and Le 2021, arXiv:2104.00298
        "efficientnetv2b0": PretrainedEncoder(
            "EfficientNetV2B0",
            keras.applications.EfficientNetV2B0,
            (
                "block1a_project_activation",
                "block2b_add",
                "block4a_expand_activation",
                "block6a_expand_activation",
            ),
            _NO_PREPROCESSING,
        ),
        "efficientnetv2s": PretrainedEncoder(
            "EfficientNetV2S",
            keras.applications.EfficientNetV2S,
            (
                "block1b_add",
                "block2d_add",
                "block4a_expand_activation",
                "block6a_expand_activation",
            ),
            _NO_PREPROCESSING,
        ),
        # Sandler et al. 2018, arXiv:1801.04381
        "mobilenetv2": PretrainedEncoder(
            "MobileNetV2",
            keras.applications.MobileNetV2,
            (
                "block_1_expand_relu",
                "block_3_expand_relu",
                "block_6_expand_relu",
                "block_13_expand_relu",
            ),
        ),
        # Huang et al. 2017, arXiv:1608.06993
        "densenet121": PretrainedEncoder(
            "DenseNet121",
            keras.applications.DenseNet121,
            ("conv1_relu", "pool2_conv", "pool3_conv", "pool4_conv"),
        ),
    }
)
"""`model.pretrained.encoder` -> network."""
