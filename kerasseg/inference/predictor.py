"""`Predictor`: a network that takes whole volumes."""

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from kerasseg import targets
from kerasseg.config import EvaluationSettings, PipelineSettings
from kerasseg.inference.sliding_window import sliding_window
from kerasseg.pipeline.slices import AXES

_AXIS_NAMES = ("depth", "height", "width")


class Predictor:
    """Wraps a network of patches for volumes of any size.

    The network maps (B, d, h, w, C) to (B, d, h, w, K), or, where `pipeline.patch_size` has two
    numbers, slices (B, h, w, C (2 n + 1)) to (B, h, w, K). A volume then goes through it slice by
    slice along `pipeline.slices.axis`, each with its n neighbours on both sides as channels: all
    modalities of the first neighbour, then of the next one; zeros outside the volume.

    `target` says what the K channels are and how probabilities become masks.

    With `evaluation.flips` every window goes through the network mirrored along each combination
    of these axes of the volume, too, and the probabilities, mirrored back, are averaged.
    """

    def __init__(
        self,
        network: keras.Model,
        pipeline: PipelineSettings,
        settings: EvaluationSettings,
        *,
        target: str,
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.target = target
        slices = len(pipeline.patch_size) == 2
        self._axis = AXES[pipeline.slices.axis] if slices else None
        self._flips = _flips(settings.flips, self._axis)
        # Not network.predict: Keras would compile it with XLA, which is slow on a CPU.
        self._forward = tf.function(
            lambda batch: network(batch, training=False), reduce_retracing=True
        )

    def probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> probabilities (D, H, W, K) float32."""
        if self._axis is None:
            return self._slide(volume)
        return np.moveaxis(self._slide(np.moveaxis(volume, self._axis, 0)), 0, self._axis)

    def masks(self, volume: np.ndarray) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> one boolean mask per channel (D, H, W, K).

        A sigmoid target holds from `evaluation.threshold` on, a softmax target where it is the
        most probable of the averaged windows.
        """
        return targets.probabilities_to_masks(
            self.probabilities(volume), self.target, self.settings.threshold
        )

    def _slide(self, volume: np.ndarray) -> np.ndarray:
        patch = self.pipeline.patch_size
        slices = len(patch) == 2
        return sliding_window(
            self._predict_slices if slices else self._predict,
            volume,
            (1, *patch) if slices else patch,
            overlap=self.settings.overlap,
            weighting=self.settings.weighting,
            batch=self.settings.window_batch,
            context=self.pipeline.slices.neighbours if slices else 0,
        )

    def _predict(self, windows: np.ndarray) -> np.ndarray:
        mean = np.zeros((), np.float32)
        for axes in self._flips:
            mirrored = np.ascontiguousarray(np.flip(windows, axes))
            mean = mean + np.flip(self._forward(tf.constant(mirrored)).numpy(), axes)
        return mean / len(self._flips)

    def _predict_slices(self, windows: np.ndarray) -> np.ndarray:
        """(B, 2 n + 1, h, w, C) -> (B, 1, h, w, K)."""
        count, _, height, width, _ = windows.shape
        channels = np.moveaxis(windows, 1, 3).reshape(count, height, width, -1)
        return self._predict(channels)[:, np.newaxis]


def _flips(names: Sequence[str], slice_axis: int | None) -> list[tuple[int, ...]]:
    """Every combination of the named axes, none of them first, as axes of a batch of windows.

    Slices lie across `slice_axis`, which a batch of them does not have.
    """
    axes = [axis for axis in range(3) if axis != slice_axis]
    places = [1 + axes.index(_AXIS_NAMES.index(name)) for name in names]
    return [
        chosen
        for count in range(len(places) + 1)
        for chosen in itertools.combinations(places, count)
    ]
