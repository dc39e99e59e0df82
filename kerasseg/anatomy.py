"""The domain's constants: modalities, label ids, tumour sub-regions and regions, their colours."""

import math
from types import MappingProxyType
from typing import Final

T1: Final = "t1"
T1CE: Final = "t1ce"
T2: Final = "t2"
FLAIR: Final = "flair"

MODALITIES: Final = (FLAIR, T1, T1CE, T2)
"""Default channel order; the one of the Kaggle BraTS2020 HDF5 slices."""

MODALITY_TITLES: Final = MappingProxyType({FLAIR: "FLAIR", T1: "T1", T1CE: "T1ce", T2: "T2"})

MODALITY_ALIASES: Final = MappingProxyType(
    {"t1n": T1, "t1c": T1CE, "t1gd": T1CE, "t1w": T1, "t2w": T2, "t2f": FLAIR}
)
"""Names of BraTS 2023 and later (t1n, t1c, t2w, t2f) and other common ones -> canonical name."""

BACKGROUND: Final = 0
NCR: Final = 1
ED: Final = 2
ET: Final = 3

LABELS: Final = MappingProxyType({BACKGROUND: "background", NCR: "NCR", ED: "ED", ET: "ET"})
"""Canonical label ids on disk (BraTS: necrotic core, peritumoral edema, enhancing tumour)."""

SUBREGIONS: Final = MappingProxyType({"NCR": NCR, "ED": ED, "ET": ET})
"""The three sub-regions in the order of a model's output channels."""

TUMOUR: Final = 1
"""Tumour of any kind, in labels that do not tell the sub-regions apart. The number is that of NCR,
so it means tumour only beside the class set `tumour` or the target `binary`."""

CLASSES: Final = MappingProxyType(
    {"subregions": SUBREGIONS, "tumour": MappingProxyType({"tumour": TUMOUR})}
)
"""Class sets: the ids on disk of what a data set's segmentations tell apart, which are the three
sub-regions, or only tumour and healthy tissue."""

REGIONS: Final = MappingProxyType({"WT": (NCR, ED, ET), "TC": (NCR, ET), "ET": (ET,)})
"""BraTS evaluation regions: whole tumour, tumour core, enhancing tumour; each holds the next."""

TARGETS: Final = MappingProxyType(
    {
        "labels": MappingProxyType({name: (i,) for i, name in LABELS.items()}),
        "subregions": MappingProxyType({name: (i,) for name, i in SUBREGIONS.items()}),
        "regions": REGIONS,
        "binary": MappingProxyType({"tumour": (NCR, ED, ET)}),
    }
)
"""Targets of a model: target -> output channel -> the ids on disk that belong to it."""

ACTIVATIONS: Final = MappingProxyType(
    {"labels": "softmax", "subregions": "sigmoid", "regions": "sigmoid", "binary": "sigmoid"}
)
"""The function from logits to probabilities: softmax where exactly one channel holds."""


def tumour_channels(target: str) -> tuple[str, ...]:
    """Return the channels of a target without the background; these are scored."""
    return tuple(name for name, ids in TARGETS[target].items() if BACKGROUND not in ids)


BRATS_LABEL_MAP: Final = MappingProxyType({0: BACKGROUND, 1: NCR, 2: ED, 3: ET, 4: ET})
"""BraTS ids -> canonical. Enhancing tumour is 4 up to BraTS 2021 and 3 from BraTS 2023 on."""

BRATS_2023_LABEL_MAP: Final = MappingProxyType({i: i for i in LABELS})
"""That of files with the names of BraTS 2023 and later. Their 4, if any, is no tumour's core: from
2024 on it is the resection cavity, in the paediatric data edema."""

COLOURS: Final = MappingProxyType(
    {
        "NCR": "#e6194b",
        "ED": "#ffd23f",
        "ET": "#35a7ff",
        "WT": "#ffd23f",
        "TC": "#e6194b",
        "tumour": "#e6194b",
    }
)
"""Colour of every channel; background is not drawn. A region has the colour of the sub-region
that no smaller region holds: smaller regions are drawn over it, the innermost last."""

BRATS_SLICES: Final = 155
"""Axial slices of every BraTS volume, which is 240 x 240 x 155 voxels of 1 mm."""

BRATS_SHAPE: Final = (BRATS_SLICES, 240, 240)
"""Voxels (D, H, W) of every BraTS volume; each is 1 mm wide."""

BRATS_DIAGONAL: Final = math.hypot(*BRATS_SHAPE)
"""Diagonal of a BraTS volume, 373.13 mm: the Hausdorff distance where one of two masks is empty."""

BRATS_LESION_DISTANCE: Final = 374.0
"""mm of HD95 for a lesion that was missed or invented, in the lesion-wise scores of BraTS 2023."""

BRATS_LESIONS: Final = MappingProxyType(
    {"GLI": (3, 50.0), "SSA": (3, 50.0), "PED": (3, 50.0), "MEN": (1, 50.0), "MET": (1, 2.0)}
)
"""Challenge of BraTS 2023 -> how its lesion-wise scores find lesions: by how many voxels the truth
is dilated, and the volume in mm^3 that a lesion must exceed (eval.py of
github.com/rachitsaluja/BraTS-2023-Metrics, and the organisers' post synapse.org
syn51156910, thread 10357)."""
