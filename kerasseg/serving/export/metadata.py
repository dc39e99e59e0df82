"""What the signature `metadata` tells of a model."""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata as packages
from typing import Any

from kerasseg import __version__, anatomy
from kerasseg.config_file import dump_experiment
from kerasseg.inference.load_run import LoadedRun
from kerasseg.prediction.model import Model
from kerasseg.serving.graph.bytes import COMPRESSIONS, DTYPES
from kerasseg.serving.graph.check_volume import Accepted


def describe(
    model: Model, accepted: Accepted, ids: Mapping[int, int], *, gzip: bool
) -> dict[str, Any]:
    """Name -> what JSON can hold; the names are those of `docs/serving.md`."""
    data, target = model.data, model.target
    labels = label_names(target, ids)
    regions = list(anatomy.TARGETS[target])
    shown = [name for name in (*labels, *regions) if name in anatomy.COLOURS]
    flat = all(run.predictor.slice_axis is not None for run in model.runs)
    return {
        "modalities": list(accepted.modalities),
        "channels": len(accepted.modalities),
        "dimensions": 2 if flat else 3,
        "axes": ["superior", "posterior", "left"],
        "spacing": list(data.spacing) if data.spacing else None,
        "size": list(data.size) if data.size else None,
        "labels": labels,
        "colours": {name: anatomy.COLOURS[name] for name in dict.fromkeys(shown)},
        "target": target,
        "regions": regions,
        "limits": {
            "voxels": accepted.voxels,
            "smallest_depth": 2 if accepted.volumes else 1,
            "dtypes": list(DTYPES),
            "compressions": list(COMPRESSIONS if gzip else COMPRESSIONS[:1]),
        },
        "combine": model.combine if len(model.runs) > 1 else None,
        "patch_size": [list(run.predictor.pipeline.patch_size) for run in model.runs],
        "config": "---\n".join(dump_experiment(run.experiment) for run in model.runs),
        "score": {run.folder.name: _read(run, "summary.json").get("dice") for run in model.runs},
        "versions": {
            "kerasseg": __version__,
            **{name: packages.version(name) for name in ("tensorflow", "keras")},
            "trained_with": {
                run.folder.name: _read(run, "environment.json").get("packages")
                for run in model.runs
            },
        },
        "exported": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": [run.folder.name for run in model.runs],
    }


def label_names(target: str, ids: Mapping[int, int]) -> dict[str, int]:
    """Names of a segmentation's labels, background first -> the id that each has in `ids`."""
    names = {anatomy.BACKGROUND: anatomy.LABELS[anatomy.BACKGROUND], anatomy.TUMOUR: "tumour"}
    if target != "binary":
        names = dict(anatomy.LABELS)
    return {name: int(ids[canonical]) for canonical, name in names.items()}


def _read(run: LoadedRun, name: str) -> dict[str, Any]:
    """A file of the run; empty where its training was stopped before it was written."""
    path = run.folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
