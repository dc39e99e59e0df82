"""A predictor over whole cases of a store: scores and figures.

Cases of a store through a predictor.

Validation on whole volumes while a network is trained.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import keras

from kerasseg import anatomy
from kerasseg.evaluation.case_files import CaseFiles
from kerasseg.evaluation.results import CasePair, whole_volume
from kerasseg.evaluation.scores import DICE_ALONE, CaseScore, mean_scores, score_case
from kerasseg.figures.style import save_figure
from kerasseg.figures.volumes import draw_overlay, draw_views, has_depth
from kerasseg.inference.ensemble import Ensemble
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
                save_figure(drawing(stored, prediction, target, title), figures / name)
            score = dataclasses.replace(score, figures=tuple(drawings))
        scores.append(score)
    return scores


def predicted_cases(
    predictor: Predictor | Ensemble,
    store: RecordStore,
    case_ids: Sequence[str],
    split: str,
    files: CaseFiles | None = None,
) -> Iterator[CasePair]:
    """Segment cases one after the other, as whole scans on the store's grid, and write their
    `files`.

    Probabilities count in the voxels of the brain: air would only make a calibration look good.
    """
    words = f"Segmenting {len(case_ids)} whole case{'' if len(case_ids) == 1 else 's'}"
    for case_id in track(case_ids, len(case_ids), words):
        stored = store.load(case_id)
        case = stored.case
        assert case.label is not None  # a store holds labelled cases only
        started = time.monotonic()
        if isinstance(predictor, Ensemble):  # votes are of masks, some post-processing is in mm
            probabilities = predictor.probabilities(case.image, case.spacing)
        else:
            probabilities = predictor.probabilities(case.image)
        masks = predictor.masks_from_probabilities(probabilities, case.spacing)
        seconds = time.monotonic() - started
        if files is not None:
            files.write(store.rows[case_id], stored, predictor, probabilities, masks)
        yield CasePair(
            case_id=case_id,
            split=split,
            truth=whole_volume(stored, case.label),
            masks=whole_volume(stored, masks),
            spacing=case.spacing,
            patient_id=case.patient_id,
            probabilities=whole_volume(stored, probabilities),
            inside=whole_volume(stored, (case.image != 0).any(axis=-1) | (case.label > 0)),
            seconds=seconds,
        )


Scores = dict[str, float]


class VolumeValidation(keras.callbacks.Callback):
    """After every `every`-th epoch segments whole cases and adds their mean Dice to the logs.

    `val_volume_dice_<column>` as in `metrics.csv`, by the weights that the epoch's checkpoint
    gets. `predictor` wraps the network that is trained. Of several machines one computes them, and
    `share` gives them to all, so that other callbacks decide the same everywhere.
    """

    def __init__(
        self,
        predictor: Predictor,
        store: RecordStore,
        case_ids: Sequence[str],
        target: str,
        every: int,
        share: Callable[[Callable[[], Scores]], Scores] = lambda compute: compute(),
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.store = store
        self.case_ids = case_ids
        self.target = target
        self.every = every
        self.share = share

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and (epoch + 1) % self.every == 0:
            logs |= self.share(self._scores)

    def _scores(self) -> Scores:
        cases = {"validation": self.case_ids}
        scores = evaluate(self.predictor, self.store, cases, self.target, Path(), overlays=0)
        return {f"val_volume_dice_{name}": value for name, value in mean_scores(scores).items()}
