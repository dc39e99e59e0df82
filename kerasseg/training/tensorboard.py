"""TensorBoard's pictures, histograms and HParams of a training, besides Keras's own curves."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kerasseg import anatomy
from kerasseg.errors import storage_error
from kerasseg.targets import masks_to_label, probabilities_to_masks
from kerasseg.training.step import network_inputs

HPARAMS_SUFFIX = ".hparams"
_STATUS = {
    "completed": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "running": api_pb2.STATUS_RUNNING,
}


class ValidationImages(keras.callbacks.Callback):
    """Writes one strip per validation patch after each epoch: every modality, truth, prediction.

    A volume is shown by its axial slice with most tumour, neighbouring slices that are channels by
    the middle one. Where target channels overlap, the innermost is shown. Probabilities count from
    0.5 on, or where they are the largest, as in the metrics of training. `batches` yields image
    (B, D, H, W, C), masks (B, D, H, W, K), or (B, H, W, …) for a 2-D network, and weight (B,),
    which is 0 for fillers. The first batch is shown.
    """

    def __init__(
        self,
        folder: Path,
        network: keras.Model,
        batches: tf.data.Dataset,
        *,
        modalities: int,
        target: str,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.network = network
        self.batches = batches
        self.modalities = modalities
        self.target = target
        self._writer: Any = None
        self._image: Any = None
        self._inputs: Any = None
        self._label: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._writer = tf.summary.create_file_writer(str(self.folder / "validation"))
        image, masks, weight = (t.numpy() for t in next(iter(self.batches.take(1))))
        self._image, masks = image[weight > 0], masks[weight > 0]
        self._inputs = network_inputs(self.network, self._image, masks)
        self._label = masks_to_label(masks, self.target)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not len(self._image):
            return  # this machine of several has no validation case
        # Slice by slice through a 3-D network would change the norms; whole patches are exact.
        probabilities = np.asarray(self.network(self._inputs, training=False))
        masks = probabilities_to_masks(probabilities, self.target)
        prediction = masks_to_label(masks, self.target)
        strips = [
            self._strip(*patch) for patch in zip(self._image, self._label, prediction, strict=True)
        ]
        with self._writer.as_default(step=epoch):
            tf.summary.image("modalities, truth, prediction", np.stack(strips), max_outputs=4)
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _strip(self, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Draw a patch without its batch axis: (H, (modalities + 2) W, 3) RGB in 0..1."""
        if image.ndim == 4:
            index = int(np.count_nonzero(label, axis=(1, 2)).argmax())
            image, label, prediction = image[index], label[index], prediction[index]
        first = (image.shape[-1] - self.modalities) // 2
        middle = image[..., first : first + self.modalities]
        panels = [np.repeat(_grey(middle[..., c]), 3, -1) for c in range(self.modalities)]
        panels += [self._coloured(label), self._coloured(prediction)]
        return np.concatenate(panels, axis=1)

    def _coloured(self, label: np.ndarray) -> np.ndarray:
        rgb = np.zeros((*label.shape, 3))
        for name in anatomy.tumour_channels(self.target):
            code = anatomy.COLOURS[name].lstrip("#")
            held = np.isin(label, anatomy.TARGETS[self.target][name])
            rgb[held] = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        return rgb


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values.astype(np.float32), (1, 99))
    return np.clip((values[..., None] - low) / max(high - low, 1e-6), 0, 1)


class Histograms(keras.callbacks.Callback):
    """Writes a histogram of every trained weight and of its last gradient, at some epochs' ends.

    Gradients are those of the epoch's last update, over all devices and after clipping. The model
    must have been made with `keep_gradients`. Where the optimiser averages weights, these are the
    averages, as they are what is validated. `every` is the number of epochs from one histogram to
    the next.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__()
        self.folder = folder
        self.every = every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every:
            return
        writer: Any = tf.summary.create_file_writer(str(self.folder / "histograms"))
        with writer.as_default(step=epoch):
            for variable in self.model.trainable_variables:
                tf.summary.histogram(f"weights/{variable.path}", variable.numpy())
                gradient = self.model.kept_gradients[variable.path]
                tf.summary.histogram(f"gradients/{variable.path}", gradient.numpy())
        writer.close()


def write_hparams(
    folder: Path,
    values: Mapping[str, Any],
    metrics: Mapping[str, float],
    trial_id: str,
    space: Mapping[str, Any] | None = None,
    status: str = "completed",
) -> None:
    """Write one execution of a trial into `folder`, the `tensorboard` of its run.

    TensorBoard averages the executions of one trial. Lists are written as text, and with `space` so
    is every value of a choice among values of several types. A metric that is not finite is left
    out. `status` is completed, stopped, failed or running.
    """
    choices = {name: entry.get("choice") for name, entry in (space or {}).items()}
    written = {name: hparam_value(value, choices.get(name)) for name, value in values.items()}
    with hparams_events(folder) as write:
        write(hparams.hparams_pb(written, trial_id), 0)
        for name, value in metrics.items():
            if math.isfinite(value):
                scalar = summary_pb2.Summary.Value(tag=name, simple_value=value)
                write(summary_pb2.Summary(value=[scalar]), 0)
        if status != "running":
            write(_session_end(_STATUS[status]), 0)


def hparam_value(value: Any, choices: Any = None) -> bool | float | str:
    """Return a value as TensorBoard stores it; all values of a parameter must be of one type."""
    kinds = {_kind(choice) for choice in choices or [value]} | {_kind(value)}
    if kinds == {"boolean"}:
        return bool(value)
    if kinds == {"number"}:
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "string"


def _session_end(status: int) -> summary_pb2.Summary:
    """Return the summary that ends a session.

    `summary_v2` has no function for it, and that of `summary` needs TensorFlow.
    """
    content = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    )
    value = summary_pb2.Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(content),
        tensor=metadata.NULL_TENSOR,
    )
    return summary_pb2.Summary(value=[value])


@contextmanager
def hparams_events(folder: Path, suffix: str = HPARAMS_SUFFIX) -> Iterator[Any]:
    """Yield a function that writes a summary of a step into a new event file of `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = EventFileWriter(str(folder), filename_suffix=suffix)
    except OSError as error:
        raise storage_error(
            error, f"Writing TensorBoard's files in {folder}", "run.root"
        ) from error
    try:
        yield lambda summary, step: writer.add_event(
            event_pb2.Event(summary=summary, step=step, wall_time=time.time())
        )
    finally:
        writer.close()
