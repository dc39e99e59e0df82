"""Section `metrics`: how whole cases are scored."""

from typing import Literal

from kerasseg import anatomy
from kerasseg.settings.base import Section, setting


class MetricsSection(Section):
    """How whole cases are scored, and how sure the means are."""

    tolerance: float = setting(
        1.0, "Distance within which two surfaces agree, for the surface Dice.", unit="mm", ge=0.0
    )
    empty: Literal["brats", "skip"] = setting(
        "brats",
        "Where truth or prediction is empty. brats: overlap 1 and distance 0 if both are, else 0 "
        "and empty_distance. skip: the case does not count in that column.",
    )
    empty_distance: float = setting(
        anatomy.BRATS_DIAGONAL,
        "HD95 and ASSD where one of two masks is empty; the diagonal of a BraTS volume.",
        unit="mm",
        ge=0.0,
    )
    lesions: Literal["GLI", "SSA", "PED", "MEN", "MET"] = setting(
        "GLI", "Challenge of BraTS 2023 whose rules of lesion-wise scores hold."
    )
    resamples: int = setting(
        2000, "Bootstrap resamples of the means' intervals.", ge=100, le=1_000_000
    )
    confidence: float = setting(
        0.95, "Confidence of the means' intervals.", unit="fraction", gt=0.0, lt=1.0
    )
