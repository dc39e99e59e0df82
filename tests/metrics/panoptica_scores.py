"""What panoptica says of pairs of masks; run by a Python that has it, without kerasseg.

In and out are npz files: truth and prediction (N, D, H, W) bool, spacing (N, 3) in mm; of every
metric (N,), NaN where it has none.
"""

import sys

import numpy as np
from panoptica import (
    ConnectedComponentsInstanceApproximator,
    InputType,
    Metric,
    NaiveThresholdMatching,
    Panoptica_Evaluator,
)

OVERLAPS = ("dsc", "iou")
WHOLE = ("sq_dsc", "sq", "sq_rvd", "sq_assd", "sq_hd", "sq_hd95", "sq_nsd")
COUNTS = ("n_ref_instances", "tp", "fp", "fn")

BY_LESION = Panoptica_Evaluator(
    expected_input=InputType.SEMANTIC,
    instance_approximator=ConnectedComponentsInstanceApproximator(),
    # Lesions match where they have a voxel in common; several predicted ones may match one.
    instance_matcher=NaiveThresholdMatching(
        matching_metric=Metric.IOU,
        matching_threshold=0.0,
        strict_threshold=True,
        allow_many_to_one=True,
    ),
    instance_metrics=[Metric.IOU],
    global_metrics=[Metric.DSC, Metric.IOU],
)
# Its metrics of whole masks do not know the voxel size, those of instances do: so a mask is one
# instance, and what it calls segmentation quality is the metric of that one.
BY_MASK = Panoptica_Evaluator(
    expected_input=InputType.MATCHED_INSTANCE,
    instance_metrics=[
        getattr(Metric, n) for n in ["DSC", "IOU", "RVD", "ASSD", "HD", "HD95", "NSD"]
    ],
    global_metrics=[],
)


def scores(truth, prediction, spacing):
    masks = prediction.astype(np.uint8), truth.astype(np.uint8)
    options = {"result_all": False, "voxelspacing": tuple(spacing)}
    found = BY_LESION.evaluate(*masks, **options)["ungrouped"]
    values = {name: getattr(found, name) for name in COUNTS}
    values |= {name: getattr(found, f"global_bin_{name}") for name in OVERLAPS}
    values |= dict.fromkeys(WHOLE, np.nan)
    if truth.any() and prediction.any():
        found = BY_MASK.evaluate(*masks, **options)["ungrouped"]
        values |= {name: getattr(found, name) for name in WHOLE}
    return values


if __name__ == "__main__":
    source, place = sys.argv[1:]
    with np.load(source) as given:
        each = zip(given["truth"], given["prediction"], given["spacing"], strict=True)
        rows = [scores(*row) for row in each]
    np.savez(place, **{name: np.array([float(row[name]) for row in rows]) for name in rows[0]})
