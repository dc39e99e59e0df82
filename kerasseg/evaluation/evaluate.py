"""A predictor over whole cases of a store: scores and figures."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kerasseg import anatomy
from kerasseg.evaluation.figures.overlay import draw_overlay
from kerasseg.evaluation.figures.views import draw_views, has_depth
from kerasseg.evaluation.scores import DICE_ALONE, CaseScore, score_case
from kerasseg.evaluation.whole_volume import whole_volume
from kerasseg.inference.predictor import Predictor
from kerasseg.metrics.case_metrics import MetricSettings
from kerasseg.progress import track
from kerasseg.records.store import RecordStore
from kerasseg.targets import masks_to_label


def evaluate(
    predictor: Predictor,
    store: RecordStore,
    splits: Mapping[str, Sequence[str]],
    target: str,
    figures: Path,
    overlays: int,
    settings: MetricSettings = DICE_ALONE,
) -> list[CaseScore]:
    """Segment every case of `splits` (name -> case ids), one in memory at a time.

    Draws the first `overlays` cases of each split into `figures`. Metrics are of the whole scan on
    the store's grid, not only of the box that is stored.
    """
    jobs = [
        (split, case_id, index < overlays)
        for split, case_ids in splits.items()
        for index, case_id in enumerate(case_ids)
    ]
    noun = "case" if len(jobs) == 1 else "cases"
    scores = []
    for split, case_id, draw in track(jobs, len(jobs), f"Segmenting {len(jobs)} whole {noun}"):
        stored = store.load(case_id)
        case = stored.case
        assert case.label is not None  # a store holds labelled cases only
        started = time.monotonic()
        masks = predictor.masks(case.image, case.spacing)
        seconds = time.monotonic() - started
        label, whole = (whole_volume(stored, part) for part in (case.label, masks))
        score = score_case(case_id, split, label, whole, target, case.spacing, settings)
        score = dataclasses.replace(score, patient_id=case.patient_id, seconds=seconds)
        if draw:
            prediction = masks_to_label(masks, target)
            title = f"{case_id} ({split}), Dice " + ", ".join(
                f"{name} {score.dice[name]:.2f}" for name in anatomy.tumour_channels(target)
            )
            drawings = {f"{case_id}_overlay.png": draw_overlay}
            if has_depth(stored):
                drawings[f"{case_id}_views.png"] = draw_views
            for name, drawing in drawings.items():
                drawing(stored, prediction, target, title, figures / name)
            score = dataclasses.replace(score, figures=tuple(drawings))
        scores.append(score)
    return scores
