"""Pictures of validation patches for TensorBoard."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.targets import masks_to_label, probabilities_to_masks


class ValidationImages(keras.callbacks.Callback):
    """Writes one strip per validation patch after each epoch: every modality, truth, prediction.

    A volume is shown by its axial slice with most tumour, neighbouring slices that are channels by
    the middle one. Where target channels overlap, the innermost is shown. Probabilities count from
    0.5 on, or where they are the largest, as in the metrics of training.

    Args:
        folder: The folder of TensorBoard's files.
        network: The network.
        batches: Yields image (B, D, H, W, C), masks (B, D, H, W, K), or (B, H, W, …) for a 2-D
            network, and weight (B,), which is 0 for fillers. The first batch is shown.
        modalities: The number of modalities.
        target: A row of `anatomy.TARGETS`.
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
        self._label: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._writer = tf.summary.create_file_writer(str(self.folder / "validation"))
        image, masks, weight = (t.numpy() for t in next(iter(self.batches.take(1))))
        self._image, masks = image[weight > 0], masks[weight > 0]
        self._label = masks_to_label(masks, self.target)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not len(self._image):
            return  # of several machines this one has no validation case
        # Slice by slice through a 3-D network would change the norms; whole patches are exact.
        probabilities = np.asarray(self.network(self._image, training=False))
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
