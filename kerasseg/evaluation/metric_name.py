"""Names of metrics as people write them."""

from kerasseg.metrics.case_metrics import UNITS

_SPELLED = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "assd": "ASSD"}


def metric_name(metric: str, *, unit: bool = True) -> str:
    """Such as "Lesion-wise HD95 [mm]" for `lesion_wise_hd95`."""
    words = " ".join(_SPELLED.get(word, word) for word in metric.split("_"))
    words = words.replace("lesion wise", "lesion-wise")
    words = words[0].upper() + words[1:]
    return f"{words} [{UNITS[metric]}]" if unit and UNITS[metric] else words
