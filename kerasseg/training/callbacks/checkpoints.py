"""Best and last checkpoint, and early stopping on the same score."""

from pathlib import Path

import keras

from kerasseg.models.float32_twin import float32_twin
from kerasseg.training.state import Progress
from kerasseg.write_aside import write_aside


class Checkpoints(keras.callbacks.Callback):
    """After each epoch writes `best.keras` if the smoothed validation Dice rose, and `last.keras`.

    The score of one epoch is noisy, and the best of many noisy ones is a lucky one. `smoothing` is
    the share m of the earlier epochs: s_t = m s_(t-1) + (1 - m) score_t, divided by 1 - m^t, as if
    it had not begun at 0. It is added to the logs as `val_dice_smoothed`.

    `network` is saved without its compile settings, so that plain `keras.saving.load_model`
    reads it. Keeps `progress`. `patience` epochs without a rise end the fit; None never does.
    """

    def __init__(
        self,
        network: keras.Model,
        folder: Path,
        progress: Progress,
        patience: int | None,
        smoothing: float = 0.0,
        monitor: str = "val_dice",
    ) -> None:
        super().__init__()
        self.network = network
        self.folder = folder
        self.progress = progress
        self.patience = patience
        self.smoothing = smoothing
        self.monitor = monitor

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        progress, share = self.progress, self.smoothing
        progress.score_sum = share * progress.score_sum + (1 - share) * float(logs[self.monitor])
        score = logs[f"{self.monitor}_smoothed"] = progress.score_sum / (1 - share ** (epoch + 1))
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, epoch + 1
            save_network(self.network, self.folder / "best.keras")
        if self.patience and epoch + 1 - progress.best_epoch >= self.patience:
            progress.stopped_early = True
            self.model.stop_training = True
        save_network(self.network, self.folder / "last.keras")


def save_network(network: keras.Model, path: Path) -> None:
    """Write a float32 `.keras` file aside first, then in one rename."""
    with write_aside(path, "run.root") as temporary:
        float32_twin(network).save(temporary)
