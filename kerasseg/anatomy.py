"""The domain's constants: modalities, label ids, tumour sub-regions and regions, their colours."""

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

CLASSES: Final = MappingProxyType(
    {"subregions": SUBREGIONS, "tumour": MappingProxyType({"tumour": 1})}
)
"""What a data set's segmentations tell apart, and the ids on disk: the three sub-regions, or only
tumour from healthy (id 1 then means tumour of any kind)."""

TARGETS: Final = MappingProxyType(
    {
        "subregions": MappingProxyType({"NCR": (NCR,), "ED": (ED,), "ET": (ET,)}),
        "binary": MappingProxyType({"tumour": (NCR, ED, ET)}),
    }
)
"""What a model predicts: target -> output channel -> the ids on disk that belong to it."""

REGIONS: Final = MappingProxyType({"WT": (NCR, ED, ET), "TC": (NCR, ET), "ET": (ET,)})
"""BraTS evaluation regions: whole tumour, tumour core, enhancing tumour."""

BRATS_LABEL_MAP: Final = MappingProxyType({0: BACKGROUND, 1: NCR, 2: ED, 3: ET, 4: ET})
"""BraTS ids -> canonical. Enhancing tumour is 4 up to BraTS 2021 and 3 from BraTS 2023 on."""

COLOURS: Final = MappingProxyType(
    {"NCR": "#e6194b", "ED": "#ffd23f", "ET": "#35a7ff", "tumour": "#e6194b"}
)

BRATS_SLICES: Final = 155
"""Axial slices of every BraTS volume, which is 240 x 240 x 155 voxels of 1 mm."""
