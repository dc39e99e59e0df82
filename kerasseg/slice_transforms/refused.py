"""The transforms of Albumentations that are not for slices of z-scores, and why.

`tests/slice_transforms/test_every_transform.py` tries all of the installed version.
"""

from types import MappingProxyType
from typing import Final

_COLOURS = "it takes the channels for red, green and blue"
_BOXES = "it needs bounding boxes, and a patch has none"
_OTHERS = "it needs other images beside the patch"
_VOLUMES = "it is for volumes, and a patch of a 2-D network is a slice"
_UNIT = "it changes the unit of the intensities, which are z-scores"
_LISTS = "a list within the list is not offered: name its transforms, each with its p"

_REASONS = {
    _COLOURS: "ChromaticAberration HEStain HueSaturationValue ISONoise PlanckianJitter RGBShift "
    "RandomFog RandomGravel RandomRain RandomSnow RandomSunFlare Spatter ToGray ToRGB ToSepia",
    _BOXES: "AtLeastOneBBoxRandomCrop BBoxSafeRandomCrop RandomCropNearBBox "
    "RandomSizedBBoxSafeCrop",
    _OTHERS: "FDA HistogramMatching Mosaic OverlayElements PixelDistributionAdaptation",
    _VOLUMES: "CenterCrop3D CoarseDropout3D CubicSymmetry Pad3D PadIfNeeded3D RandomCrop3D",
    _UNIT: "FromFloat Normalize ToFloat",
    _LISTS: "Compose OneOf OneOrOther RandomOrder ReplayCompose SelectiveChannelTransform "
    "Sequential SomeOf",
    "it mixes up the modalities, which the network tells apart by their place": "ChannelShuffle",
    "it warns on every slice without tumour: use CoarseDropout": "ConstrainedCoarseDropout",
    "it takes one or three channels and makes values that are not finite: use ElasticTransform or "
    "GridDistortion": "GridElasticDeform",
    "it needs functions, which a config cannot hold": "Lambda",
    "it grows and shrinks labels by their number, the highest over the others": "Morphological",
    "it needs the file of a font": "TextImage",
}

REFUSED: Final = MappingProxyType(
    {name: reason for reason, names in _REASONS.items() for name in names.split()}
)
"""Name -> why not."""

ONE_CHANNEL: Final = frozenset({"CLAHE", "ColorJitter", "Equalize"})
"""Right for one channel; of three they take them for colours, and others they refuse."""
