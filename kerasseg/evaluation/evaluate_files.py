"""`kerasseg evaluate --pred DIR --truth DIR`: segmentations of anybody."""

import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from kerasseg import __version__, anatomy
from kerasseg.errors import UserError
from kerasseg.evaluation.about import About
from kerasseg.evaluation.metric_settings import metric_settings
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.scan_files import read_scan
from kerasseg.evaluation.segmentation_files import find_pairs, parse_labels, read_pairs
from kerasseg.evaluation.write_evaluation import write_evaluation
from kerasseg.progress import track
from kerasseg.settings.metrics import MetricsSection


def evaluate_files(
    predictions: Path,
    truths: Path,
    output: Path,
    labels: str | None = None,
    settings: MetricsSection | None = None,
    images: Path | None = None,
) -> Path:
    """Compare the NIfTI files of two folders, one pair in memory at a time; returns the page.

    `labels` as of `parse_labels`; `images` holds scans of the same names, to be drawn.
    Raises `UserError` for whatever does not fit together.
    """
    settings = settings or MetricsSection()
    label_map, target = parse_labels(labels)
    pairs = find_pairs(predictions, truths)
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: there is no such folder.")
    results, wanted = Results(target), metric_settings(settings)
    words = f"Comparing {len(pairs)} pair{'' if len(pairs) == 1 else 's'} of files"
    for pair in track(read_pairs(pairs, label_map, target), len(pairs), words):
        results.add(pair, wanted)

    def image_of(case_id: str) -> np.ndarray | None:
        if images is None:
            return None
        return read_scan(images, case_id, results.pairs[case_id].shape[:3])

    about = About(
        title=f"{predictions.resolve().name} against {truths.resolve().name}",
        kind="Segmentations from files",
        command=" ".join(["kerasseg", *sys.argv[1:]]),
        facts={
            "Predictions": str(predictions.resolve()),
            "Truth": str(truths.resolve()),
            "Label values": ", ".join(f"{i} {_name(c, target)}" for i, c in label_map.items()),
        },
        settings=settings,
        image_of=image_of,
        environment={
            "python": sys.version.split()[0],
            "packages": {
                "kerasseg": __version__,
                **{name: metadata.version(name) for name in ("numpy", "scipy", "nibabel")},
            },
        },
    )
    return write_evaluation(output, results, about, "--output")


def _name(canonical: int, target: str) -> str:
    return "tumour" if target == "binary" and canonical else anatomy.LABELS[canonical]
