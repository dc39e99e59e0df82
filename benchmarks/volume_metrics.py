"""Metrics of a whole case on one core: against MONAI's, and everything that there is.

The real case where it is there (`../shared/data`), else a phantom of its size. The prediction is
the truth moved by (1, 2, -1) voxels, with three invented lesions far from it. Both sides get
boolean masks of NCR, ED, ET, WT and TC, made before the clock starts; neither is told where the
tumour is.
"""

import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable

import nibabel as nib
import numpy as np

from benchmarks.conversion import DATA
from benchmarks.subprocess_json import measure
from kerasseg import anatomy
from kerasseg.datasets.phantom import make_phantom
from kerasseg.metrics.case_metrics import UNITS, MetricSettings, case_metrics

ROUNDS, PASSES = 3, 3
RATIO, SECONDS = 0.5, 3.0
THREE = ("dice", "hd95", "surface_dice")
SPACING, TOLERANCE = (1.0, 1.0, 1.0), 1.0
IDS = dict(anatomy.TARGETS["subregions"]) | {
    name: ids for name, ids in anatomy.REGIONS.items() if len(ids) > 1
}
SEGMENTATION = DATA / "brats21" / "BraTS2021_00006" / "BraTS2021_00006_seg.nii.gz"

Masks = dict[str, tuple[np.ndarray, np.ndarray]]
Values = dict[str, dict[str, float]]


def run() -> str:
    """Markdown table: seconds per case (median of `ROUNDS` processes, each of `PASSES`)."""
    names = {
        "ours": "kerasseg: Dice, HD95, normalised surface Dice",
        "monai": "MONAI: the same three",
        "everything": f"kerasseg: all {len(UNITS)} metrics, the lesion-wise ones included",
    }
    rounds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, Values] = {}
    for _ in range(ROUNDS):
        for name, seconds in rounds.items():
            result = measure("benchmarks.volume_metrics", name)
            seconds.append(result["seconds"])
            values[name] = result["values"]
    _check_that_they_agree(values["ours"], values["monai"])
    median = {name: statistics.median(seconds) for name, seconds in rounds.items()}
    rows = "\n".join(f"| {title} | {median[name]:.2f} |" for name, title in names.items())
    ratio, all_seconds = median["ours"] / median["monai"], median["everything"]
    what = SEGMENTATION.parent.name if SEGMENTATION.is_file() else "a phantom of BraTS's size"
    return (
        f"## Metrics of {what}, {len(IDS)} masks, one core (median of {ROUNDS})\n\n"
        f"| | seconds per case |\n|---|---|\n{rows}\n\n"
        f"Time ratio {ratio:.2f} (at most {RATIO} is asked for: {_verdict(ratio <= RATIO)}); "
        f"everything {all_seconds:.2f} s (under {SECONDS:g} s is asked for: "
        f"{_verdict(all_seconds < SECONDS)}). The three agree with MONAI's to 1e-4."
    )


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def _check_that_they_agree(ours: Values, monai: Values) -> None:
    for name in IDS:
        for metric in THREE:
            one, other = ours[name][metric], monai[name][metric]
            if not math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4):
                sys.exit(f"{metric} of {name}: {one} here, {other} by MONAI")


def masks() -> Masks:
    """Truth and prediction (155, 240, 240) of each of `IDS`."""
    if SEGMENTATION.is_file():
        stored = np.asarray(nib.load(SEGMENTATION).dataobj).T
        truth = np.zeros(stored.shape, np.uint8)
        for found, canonical in anatomy.BRATS_LABEL_MAP.items():
            truth[stored == found] = canonical
    else:
        _, truth = make_phantom(anatomy.BRATS_SHAPE, 0, 0)
    prediction = np.roll(truth, (1, 2, -1), (0, 1, 2))
    for start, label in (((20, 30, 40), 3), ((120, 60, 200), 2), ((60, 200, 60), 1)):
        prediction[tuple(slice(s, s + 4) for s in start)] = label
    return {name: (np.isin(truth, ids), np.isin(prediction, ids)) for name, ids in IDS.items()}


def ours(case: Masks, metrics: tuple[str, ...]) -> Values:
    """kerasseg's values of each mask."""
    settings = MetricSettings(metrics=metrics, tolerance=TOLERANCE)
    return {
        name: case_metrics(truth, prediction, SPACING, settings).values
        for name, (truth, prediction) in case.items()
    }


def monai(case: Masks) -> Callable[[], Values]:
    """What computes MONAI's values of each mask; tensors are made beforehand."""
    import torch
    from monai import metrics

    torch.set_num_threads(1)
    truth, prediction = (
        torch.from_numpy(np.stack([pair[side] for pair in case.values()])[None]) for side in (0, 1)
    )
    both = {"y_pred": prediction, "y": truth, "include_background": True}

    def compute() -> Values:
        rows = zip(
            metrics.compute_dice(**both)[0].tolist(),
            metrics.compute_hausdorff_distance(**both, percentile=95, spacing=SPACING)[0].tolist(),
            metrics.compute_surface_dice(
                **both, class_thresholds=[TOLERANCE] * len(case), spacing=SPACING
            )[0].tolist(),
            strict=True,
        )
        return {
            name: dict(zip(THREE, row, strict=True)) for name, row in zip(case, rows, strict=True)
        }

    return compute


def main(what: str) -> None:
    """Print seconds of a pass (median, after one more) and its values, as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    case = masks()
    metrics = THREE if what == "ours" else tuple(UNITS)
    compute = monai(case) if what == "monai" else functools.partial(ours, case, metrics)
    values, seconds = compute(), []
    for _ in range(PASSES):
        started = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds), "values": values}))


if __name__ == "__main__":
    main(sys.argv[1])
