"""Keras callbacks of every training: checkpoints, history, learning rate, and ways to stop."""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import keras
from keras import ops

from kerasseg.errors import Interrupted, UserError
from kerasseg.files import atomic_write, write_csv
from kerasseg.models.build import float32_twin
from kerasseg.progress import LINE_SECONDS
from kerasseg.run import read_history
from kerasseg.training.state import Progress
from kerasseg.training.step import FINITE, LOSS_NOT_FINITE


class Checkpoints(keras.callbacks.Callback):
    """Writes `last.keras` after each epoch, and `best.keras` if the smoothed validation Dice rose.

    The score of one epoch is noisy, and the best of many noisy ones is a lucky one. The smoothed
    score s_t = m s_(t-1) + (1 - m) score_t is divided by 1 - m^t, as it begins at 0, and added to
    the logs as `val_dice_smoothed`.

    Args:
        network: The network, which is saved without its compile settings, so that plain
            `keras.saving.load_model` reads it.
        progress: Gets the best score and its epoch.
        patience: Epochs without a rise that end the fit; None never ends it.
        smoothing: The share m of the earlier epochs in the score.
    """

    def __init__(
        self,
        network: keras.Model,
        folder: Path,
        progress: Progress,
        patience: int | None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.folder = folder
        self.progress = progress
        self.patience = patience
        self.smoothing = smoothing

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        progress, share = self.progress, self.smoothing
        progress.score_sum = share * progress.score_sum + (1 - share) * float(logs["val_dice"])
        score = logs["val_dice_smoothed"] = progress.score_sum / (1 - share ** (epoch + 1))
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, epoch + 1
            save_network(self.network, self.folder / "best.keras")
        if self.patience and epoch + 1 - progress.best_epoch >= self.patience:
            progress.stopped_early = True
            self.model.stop_training = True
        save_network(self.network, self.folder / "last.keras")


def save_network(network: keras.Model, path: Path) -> None:
    """Write a float32 `.keras` file in one step."""
    with atomic_write(path, "run.root") as temporary:
        float32_twin(network).save(temporary)


_NOT_PRINTED = ("iou", "precision", "recall")
"""They are in `history.csv` and TensorBoard; with three classes they would fill four lines."""
_MEAN_ALONE = "dice_tumour"
"""The Dice of the only channel of a target: the mean beside it is the same number."""


class EpochLine(keras.callbacks.ProgbarLogger):
    """Keras's progress bar with loss, Dice and learning rate only: it fits a screen.

    The Dice of each class is that of validation; training's are in `history.csv`, too.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, _without_long_scores(logs))

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_test_batch_end(batch, _without_long_scores(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, _without_long_scores(logs))


def _without_long_scores(logs: dict[str, Any] | None) -> dict[str, Any] | None:
    if logs is None:
        return None
    return {
        name: value
        for name, value in logs.items()
        if (score := name.removeprefix("val_")).split("_")[0] not in _NOT_PRINTED
        and score != _MEAN_ALONE
        and (name != score or not score.startswith("dice_"))
    }


class FreezeEncoder(keras.callbacks.Callback):
    """Leaves layers as they are for the first epochs. To be used as a context around `fit`.

    A pretrained encoder is so kept from the large gradients of a decoder that knows nothing yet.
    Frozen layers get no update and no weight decay, and batch normalisation in them runs on its
    stored statistics and leaves them alone. Epochs are counted from the start of the run: one
    resumed behind them trains everything.

    The optimizer must have slots for all variables, also for the frozen ones: one that is not
    built yet is built before the first epoch. To restore slots of an earlier run, call
    `optimizer.build(model.trainable_variables)` before `fit`, where no layer is frozen.

    Layers are frozen only while batches are trained: callbacks behind this one in the list
    (moving averages, checkpoints) and the caller find the `trainable` flags as they were, also
    after an interrupt.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], epochs: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.epochs = epochs
        self._flags: list[tuple[Any, bool]] = []
        self._traced_frozen: bool | None = None

    def __enter__(self) -> "FreezeEncoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._release()

    def on_train_begin(self, logs: Any = None) -> None:
        self._traced_frozen = None
        if not self.model.optimizer.built:
            with self.model.distribute_strategy.scope():
                self.model.optimizer.build(self.model.trainable_variables)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        frozen = epoch < self.epochs
        if frozen:
            # Of the weights, too: a layer passes its flag on to all that are in it.
            parts = [part for layer in self.layers for part in (layer, *layer.weights)]
            self._flags = [(part, part.trainable) for part in parts]
            for layer in self.layers:
                layer.trainable = False
        if frozen != self._traced_frozen:
            # Which variables are trained is written into the compiled step.
            self.model.make_train_function(force=True)
            self._traced_frozen = frozen

    def on_test_begin(self, logs: Any = None) -> None:
        self._release()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._release()

    def on_train_end(self, logs: Any = None) -> None:
        self._release()

    def _release(self) -> None:
        for part, flag in self._flags:
            part.trainable = flag
        self._flags = []


class History(keras.callbacks.Callback):
    """Writes `history.csv`: a row per epoch with its logs and learning rate, epochs from 1.

    Rows of epochs that a resumed run repeats are replaced. Values that only some epochs have are
    empty in the others.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        logs["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if not self.rows and self.path.exists():
            self.rows = [row for row in read_history(self.path) if int(row["epoch"]) <= epoch]
        self.rows.append({"epoch": epoch + 1, **{k: f"{float(v):.8g}" for k, v in logs.items()}})
        columns = dict.fromkeys(name for row in self.rows for name in row)
        cells = [[row.get(name, "") for name in columns] for row in self.rows]
        write_csv(self.path, [columns, *cells], "run.root")


_EPOCHS_IN_A_ROW = 3
_RECALL_OF_ALL, _PRECISION_OF_ALL = 0.9, 0.1


def taken_by_one_class(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return a sentence for each class that has taken nearly everything, by the class's name.

    Its recall on the validation patches is near 1 while its precision is near 0, in each of the
    last three rows of a `history.csv`.
    """
    last, sentences = rows[-_EPOCHS_IN_A_ROW:], {}
    for column in last[-1] if len(last) == _EPOCHS_IN_A_ROW else ():
        name = column.removeprefix("val_recall_")
        if name == column:
            continue
        recall = min(float(row.get(column) or 0) for row in last)
        precision = max(float(row.get(f"val_precision_{name}") or 1) for row in last)
        if recall >= _RECALL_OF_ALL and precision <= _PRECISION_OF_ALL:
            sentences[name] = (
                f"{name} takes nearly everything: on the validation patches of epochs "
                f"{last[0]['epoch']} to {last[-1]['epoch']} its recall is at least {recall:.2f} "
                f"and its precision at most {precision:.3f}. If that stays so, let the loss count "
                "what is not tumour, such as by {cross_entropy: 1}, or lower "
                "optimizer.learning_rate."
            )
    return sentences


class SayTakenByOneClass(keras.callbacks.Callback):
    """Prints the sentence of `taken_by_one_class` when a class has first done so.

    It must stand behind `history` in the list, whose rows it reads.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self._said: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, sentence in taken_by_one_class(self.history.rows).items():
            if name not in self._said:
                print(f"Warning    {sentence}")
                self._said.add(name)


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises `UserError` when loss or gradient is not finite, with the cases of the batches.

    The weights are those before that update. Gradients that a smaller loss scale mends do not
    count. `case_ids(epoch, update)`, both from 0, returns the cases of an update.
    """

    def __init__(self, case_ids: Callable[[int, int], list[str]]) -> None:
        super().__init__()
        self.case_ids = case_ids
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        failure = self.model.failure.numpy()
        if failure != FINITE:
            what = "loss" if failure == LOSS_NOT_FINITE else "gradient"
            cases = ", ".join(dict.fromkeys(self.case_ids(self.epoch, batch)))
            raise UserError(
                f"The {what} is not finite in epoch {self.epoch + 1}, step {batch + 1}, on patches "
                f"of case(s) {cases}: look at these cases, lower optimizer.learning_rate, or set "
                "training.precision=float32. The best checkpoint so far is kept, and the state "
                "after the last whole epoch."
            )


class ReduceOnPlateau(keras.callbacks.Callback):
    """Multiplies the learning rate by `factor` after `patience` epochs without a better score.

    It never falls below `lowest`. The epochs that it counts from are in `progress`, so a resumed
    run goes on as an uninterrupted one; Keras's `ReduceLROnPlateau` would count anew. It must stand
    behind `Checkpoints` in the list, which keeps `progress`.
    """

    def __init__(self, progress: Progress, factor: float, patience: int, lowest: float) -> None:
        super().__init__()
        self.progress = progress
        self.factor = factor
        self.patience = patience
        self.lowest = lowest

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        progress = self.progress
        since = max(progress.best_epoch, progress.reduced_epoch)
        if epoch + 1 - since >= self.patience:
            rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self.model.optimizer.learning_rate = max(rate * self.factor, self.lowest)
            progress.reduced_epoch = epoch + 1


class SkippedUpdates(keras.callbacks.Callback):
    """Adds `loss_scale` and `skipped_updates` to the logs where the loss is scaled (mixed_float16).

    Updates count from the start of the run.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss_scale = self.model.loss_scale
        if logs is not None and loss_scale.dynamic:
            logs["loss_scale"] = float(loss_scale.scale.numpy())
            logs["skipped_updates"] = int(loss_scale.skipped.numpy())


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Interrupted):
    """Raised between two batches, where everything that a run needs to go on can be saved."""


class StopOnInterrupt(keras.callbacks.Callback):
    """Raises `Stopped` after the batch in progress on SIGINT or SIGTERM.

    To be used as a context around the training. Python alone would raise `KeyboardInterrupt`
    wherever it happens to be, also inside TensorFlow's callbacks, which swallow it, and SIGTERM
    would end the process at once. A second signal of the same kind acts so. Nothing is done outside
    the main thread, where Python allows no handlers. `any_worker` tells every machine whether one
    of them has the signal, so that all stop after the same batch.
    """

    def __init__(self, any_worker: Callable[[bool], bool] = bool) -> None:
        super().__init__()
        self.any_worker = any_worker
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        signal.signal(number, self._before[number])

    def stop(self) -> None:
        """Raise `Stopped` if a signal has come."""
        if self.any_worker(self.asked is not None):
            raise Stopped(self.asked or signal.SIGTERM)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.stop()

    on_test_batch_end = on_train_batch_end


class LinesWithinEpoch(keras.callbacks.Callback):
    """Prints a line now and then within a long epoch, where no terminal shows Keras's bar."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._started = epoch + 1, time.monotonic()
        self._said = self._started

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            steps = (self.params or {}).get("steps") or "?"
            seconds = now - self._started
            print(f"Epoch {self._epoch}: {batch + 1}/{steps} in {seconds:.0f} s", flush=True)


class StopTogether(keras.callbacks.Callback):
    """Stops the training on every machine when a callback before it has stopped it on one.

    A callback that looks at a clock, say, need not decide the same everywhere, and a machine that
    goes on alone would wait for the others for ever. `any_worker` tells every machine whether the
    condition holds on one of them.
    """

    def __init__(self, any_worker: Callable[[bool], bool]) -> None:
        super().__init__()
        self.any_worker = any_worker

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = self.any_worker(self.model.stop_training)


class StopAtDeadline(keras.callbacks.Callback):
    """Stops the training at the end of the first epoch after `deadline`, seconds since 1970.

    None lets it go on. `stopped` says whether this callback was the reason to stop.
    """

    def __init__(self, deadline: float | None) -> None:
        super().__init__()
        self.deadline = deadline
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.deadline is not None and time.time() >= self.deadline:
            self.stopped = True
            self.model.stop_training = True
