"""`Predictor`: a network that takes whole volumes."""

import keras
import numpy as np
import tensorflow as tf

from kerasseg.config import EvaluationSettings
from kerasseg.inference.sliding_window import sliding_window


class Predictor:
    """Wraps a network (B, d, h, w, C) -> (B, d, h, w, K) for volumes of any size."""

    def __init__(
        self, network: keras.Model, window: tuple[int, int, int], settings: EvaluationSettings
    ) -> None:
        self.window = window
        self.settings = settings
        # Not network.predict: Keras would compile it with XLA, which is slow on a CPU.
        self._forward = tf.function(
            lambda batch: network(batch, training=False), reduce_retracing=True
        )

    def probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> probabilities (D, H, W, K) float32."""
        return sliding_window(
            lambda batch: self._forward(tf.constant(batch)).numpy(),
            volume,
            self.window,
            overlap=self.settings.overlap,
            weighting=self.settings.weighting,
            batch=self.settings.window_batch,
        )

    def masks(self, volume: np.ndarray) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> one boolean mask per class (D, H, W, K)."""
        return self.probabilities(volume) >= self.settings.threshold
