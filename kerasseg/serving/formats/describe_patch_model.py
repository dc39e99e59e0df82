"""NAME.json: what whoever runs a patch model has to know."""

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata as packages
from typing import Any

from kerasseg import __version__, anatomy
from kerasseg.inference.load_run import LoadedRun
from kerasseg.serving.export.metadata import label_names
from kerasseg.serving.formats.runtime import Runtime

NORMALISATION = (
    "Each modality by itself: subtract the mean and divide by the standard deviation of the scan's "
    "voxels that are not 0; voxels that are 0 (air) stay 0. Over the whole scan, before patches "
    "are cut."
)


def describe_patch_model(
    run: LoadedRun, runtime: Runtime, ids: Mapping[int, int]
) -> dict[str, Any]:
    """Name -> what JSON can hold; the names are those of `docs/serving.md`."""
    data, pipeline = run.experiment.data, run.experiment.pipeline
    target, flat = run.target, run.predictor.slice_axis is not None
    channels = "the modalities in order"
    slices = None
    if flat:
        slices = {"axis": pipeline.slices.axis, "neighbours": pipeline.slices.neighbours}
    if slices and slices["neighbours"]:
        channels = (
            f"the slice with its {slices['neighbours']} neighbours on both sides, from the lowest "
            "index on: all modalities in order of the first, then of the next; 0 outside the scan"
        )
    sizes = runtime.shape[1:-1]
    return {
        "modalities": list(data.modalities),
        "channels": channels,
        "normalisation": NORMALISATION,
        "dimensions": 2 if flat else 3,
        "axes": ["superior", "posterior", "left"],
        "slices": slices,
        "spacing": list(data.spacing) if data.spacing else None,
        "size": list(data.size) if data.size else None,
        "target": target,
        "activation": f"{anatomy.ACTIVATIONS[target]}, in the model",
        "regions": list(anatomy.TARGETS[target]),
        "labels": label_names(target, ids),
        "patch_size": list(pipeline.patch_size),
        "input": {"name": runtime.input, "shape": list(runtime.shape), "dtype": "float32"},
        "output": {"name": runtime.output, "dtype": "float32"},
        "dynamic_batch": runtime.shape[0] is None,
        "dynamic_size": all(size is None for size in sizes),
        "runtime": runtime.name,
        "advice": runtime.advice,
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run.folder.name,
    }
