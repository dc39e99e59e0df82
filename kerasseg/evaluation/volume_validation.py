"""Validation on whole volumes while a network is trained."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from kerasseg.evaluation.evaluate import evaluate
from kerasseg.evaluation.scores import mean_scores
from kerasseg.inference.predictor import Predictor
from kerasseg.records.store import RecordStore

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
