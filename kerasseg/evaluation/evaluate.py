"""The loop over the cases of a record store: each is segmented, then scored or written."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from kerasseg.config.evaluation import MetricsSection
from kerasseg.datasets.resample import resample_probabilities, same_field
from kerasseg.errors import UserError
from kerasseg.evaluation.case_files import CaseFiles
from kerasseg.evaluation.results import Results, SegmentedCase, stored_box, whole_volume
from kerasseg.evaluation.scores import CaseScore, mean_scores, score_case
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.predictor import Predictor
from kerasseg.progress import track
from kerasseg.records.schema import StoredCase
from kerasseg.records.store import RecordStore


def segment_cases(
    predictor: Predictor | Ensemble, store: RecordStore, cases: Mapping[str, Sequence[str]]
) -> Iterator[SegmentedCase]:
    """Segment cases one after the other, so that one is in memory at a time.

    Args:
        predictor: a network, or several as one.
        cases: side of the split -> case ids.
    """
    jobs = [(split, case_id) for split, case_ids in cases.items() for case_id in case_ids]
    description = f"Segmenting {len(jobs)} whole case{'' if len(jobs) == 1 else 's'}"
    for split, case_id in track(jobs, len(jobs), description):
        stored = store.load(case_id)
        case = stored.case
        started = time.monotonic()
        if isinstance(predictor, Ensemble):  # votes are of masks, some post-processing is in mm
            probabilities = predictor.probabilities(case.image, case.spacing)
        elif predictor.takes_prompt:
            image = predictor.with_prompt(case.image, _prompt_mask(predictor, stored))
            probabilities = predictor.probabilities(image)
        else:
            probabilities = predictor.probabilities(case.image)
        masks = predictor.masks_from_probabilities(probabilities, case.spacing)
        seconds = time.monotonic() - started
        yield SegmentedCase(split, stored, predictor.target, probabilities, masks, seconds)


def _prompt_mask(predictor: Predictor, stored: StoredCase) -> np.ndarray:
    """Return the mask (d, h, w) of a record that prompts are made of: true, or of another run."""
    if predictor.box_run is None:
        assert stored.case.label is not None  # a store holds labelled cases only
        return stored.case.label
    other, first = predictor.box_store.load(stored.case.case_id), predictor.box_run[1]
    found = whole_volume(other, first.probabilities(other.case.image), first.background)
    shape, affine = stored.full_shape, stored.case.affine
    if found.shape[:3] != tuple(shape) or not np.allclose(other.case.affine, affine):
        if not same_field(found.shape[:3], other.case.affine, shape, affine):
            raise UserError(
                f"model.sam.boxes_from: {stored.case.case_id} does not cover the same space in the "
                f"records of {predictor.boxes_from}, so that boxes would lie outside of it: name a "
                "run of the same data."
            )
        found = resample_probabilities(found, other.case.affine, shape, affine)
    masks = first.masks_from_probabilities(found, stored.case.spacing)
    whole: np.ndarray = np.any(masks, axis=-1)
    return whole[stored_box(stored)]


def score_cases(
    predictor: Predictor | Ensemble,
    store: RecordStore,
    cases: Mapping[str, Sequence[str]],
    settings: MetricsSection,
    files: CaseFiles | None = None,
) -> dict[str, Results]:
    """Segment cases, score them by every metric, and write their label maps into `files`.

    Returns side of the split -> the results of its cases, of the whole scans on the store's grid.

    Args:
        predictor: a network, or several as one.
        cases: side of the split -> case ids.
        settings: section `metrics` of the config.
        files: where label maps and probabilities are written, if they are.
    """
    prompt = predictor.prompt
    results = {split: Results(predictor.target, settings, prompt) for split in cases}
    for case in segment_cases(predictor, store, cases):
        if files is not None:
            files.write(store.rows[case.stored.case.case_id], case, predictor)
        results[case.split].add(case.whole_scan())
    return results


def dice_of_cases(
    predictor: Predictor | Ensemble, store: RecordStore, case_ids: Sequence[str]
) -> list[CaseScore]:
    """Segment cases and measure their Dice alone, which is quick."""
    return [
        score_case(c.stored.case.case_id, c.split, c.label, c.masks, predictor.target)
        for c in segment_cases(predictor, store, {"validation": case_ids})
    ]


Scores = dict[str, float]


class VolumeValidation(keras.callbacks.Callback):
    """Segments whole cases after every `every`-th epoch and adds their mean Dice to the logs.

    It is `val_volume_dice_<column>`, with the columns of `metrics.csv`, by the weights that the
    epoch's checkpoint gets.

    Args:
        predictor: wraps the network that is trained.
        every: epochs from one validation to the next.
        share: gives what one machine computes to all of them, so that other callbacks decide the
            same everywhere.
    """

    def __init__(
        self,
        predictor: Predictor,
        store: RecordStore,
        case_ids: Sequence[str],
        every: int,
        share: Callable[[Callable[[], Scores]], Scores] = lambda compute: compute(),
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.store = store
        self.case_ids = case_ids
        self.every = every
        self.share = share

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None and (epoch + 1) % self.every == 0:
            logs |= self.share(self._scores)

    def _scores(self) -> Scores:
        scores = dice_of_cases(self.predictor, self.store, self.case_ids)
        return {f"val_volume_dice_{name}": value for name, value in mean_scores(scores).items()}
