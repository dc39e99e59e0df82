"""Pictures of validation patches for TensorBoard."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasseg import anatomy


class ValidationImages(keras.callbacks.Callback):
    """Each epoch writes one strip per validation patch: every modality, truth, prediction.

    The slice shown is the axial one with most tumour. `batches` yields image (B, d, h, w, C) and
    target (B, d, h, w, 3); its first batch is used.
    """

    def __init__(self, folder: Path, network: keras.Model, batches: tf.data.Dataset) -> None:
        super().__init__()
        self.folder = folder
        self.network = network
        self.batches = batches
        self._writer: Any = None
        self._image: Any = None
        self._target: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._writer = tf.summary.create_file_writer(str(self.folder / "validation"))
        self._image, self._target = (t.numpy() for t in next(iter(self.batches.take(1))))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Slice by slice through the network would change the norms; whole patches are exact.
        prediction = np.asarray(self.network(self._image, training=False)) >= 0.5
        strips = [
            _strip(*patch) for patch in zip(self._image, self._target, prediction, strict=True)
        ]
        with self._writer.as_default(step=epoch):
            tf.summary.image("modalities, truth, prediction", np.stack(strips), max_outputs=4)
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()


def _strip(image: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(d, h, w, C), (d, h, w, 3), (d, h, w, 3) -> (h, (C + 2) w, 3) RGB in 0..1."""
    index = int(target.any(axis=-1).sum(axis=(1, 2)).argmax())
    panels = [np.repeat(_grey(image[index, ..., c]), 3, -1) for c in range(image.shape[-1])]
    panels += [_coloured(target[index]), _coloured(prediction[index])]
    return np.concatenate(panels, axis=1)


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values.astype(np.float32), (1, 99))
    return np.clip((values[..., None] - low) / max(high - low, 1e-6), 0, 1)


def _coloured(mask: np.ndarray) -> np.ndarray:
    rgb = np.zeros((*mask.shape[:2], 3))
    for channel, name in enumerate(anatomy.SUBREGIONS):
        code = anatomy.COLOURS[name].lstrip("#")
        rgb[mask[..., channel] > 0] = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return rgb
