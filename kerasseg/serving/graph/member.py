"""One run's network over whole volumes, in a graph."""

from typing import Any

import tensorflow as tf

from kerasseg.inference.load_run import LoadedRun
from kerasseg.inference.window_weights import window_weights
from kerasseg.models.float32_twin import float32_twin
from kerasseg.serving.graph.box import Box, brain_box, in_volume
from kerasseg.serving.graph.finished_masks import finished_masks
from kerasseg.serving.graph.sliding_window import sliding_window
from kerasseg.serving.graph.z_score import z_score


class Member:
    """What `LoadedRun` and `Predictor` do to a scan that is on the run's grid already.

    network: in float32, whatever it was trained in
    weights: those of its windows, (d, h, w) float32, a variable so that it is saved once
    """

    def __init__(self, run: LoadedRun) -> None:
        predictor = run.predictor
        self.predictor = predictor
        self.network = float32_twin(predictor.network)
        patch = predictor.pipeline.patch_size
        flat = predictor.slice_axis is not None
        self._window = (1, patch[0], patch[1]) if flat else (patch[0], patch[1], patch[-1])
        weights = window_weights(self._window, predictor.settings.weighting)
        self.weights = tf.Variable(weights, trainable=False, name="window_weights")
        channels = self.network.inputs[0].shape[-1]
        self._forward = tf.function(
            lambda batch: self.network(batch, training=False),
            input_signature=[tf.TensorSpec((None, *patch, channels))],
            autograph=False,
        )

    def probabilities(self, image: Any, box: Box, shape: Any) -> tuple[Any, Box]:
        """Normalised scan -> probabilities (d, h, w, K) float32, and the box that they are of.

        image: what is in `box`, (d, h, w, C); outside there is air
        shape: (3,) of the whole

        Outside of the box returned, the brain's or the whole, all is background.
        """
        if self.predictor.settings.brain_box:
            image, inner = brain_box(image)
            box = Box(box.begin + inner.begin, inner.size)
        else:
            image = in_volume(image, box, shape, [0.0] * image.shape[-1])
            box = Box(tf.zeros_like(shape), shape)
        return self._slide(image), box

    def masks(self, probabilities: Any, spacing: Any, shape: Any) -> list[Any]:
        """`Predictor.masks_of`, K masks (d, h, w); `shape` (3,) is that of the whole volume."""
        predictor = self.predictor
        return finished_masks(
            probabilities,
            predictor.target,
            spacing,
            predictor.settings.threshold,
            predictor.postprocessing,
            shape,
        )

    def _slide(self, image: Any) -> Any:
        predictor, axis = self.predictor, self.predictor.slice_axis
        order = [0, 1, 2] if axis is None else [axis, *(a for a in range(3) if a != axis)]
        if order != [0, 1, 2]:
            image = tf.transpose(image, [*order, 3])
        found = sliding_window(
            self._predict,
            image,
            self._window,
            predictor.background,
            self.weights,
            overlap=predictor.settings.overlap,
            batch=predictor.settings.window_batch,
            context=0 if axis is None else predictor.pipeline.slices.neighbours,
        )
        if order == [0, 1, 2]:
            return found
        return tf.transpose(found, [*(order.index(a) for a in range(3)), 3])

    def _predict(self, windows: Any) -> Any:
        """(B, d + 2 n, h, w, C) -> (B, d, h, w, K); slices have a depth of 1."""
        flat = self.predictor.slice_axis is not None
        if flat:
            _, planes, height, width, channels = windows.shape
            windows = tf.transpose(windows, [0, 2, 3, 1, 4])
            windows = tf.reshape(windows, [-1, height, width, planes * channels])
        ways, total = self.predictor.ways, tf.constant(0.0)
        for way in ways:
            found = way.undo(self._forward(way.apply(windows)))
            total = found if len(ways) == 1 else total + found / len(ways)
        return total[:, tf.newaxis] if flat else total


def normalised(volume: Any) -> tuple[Any, Box]:
    """Raw scan (D, H, W, C) -> what is in the box around the brain, and the box.

    In the store's precision, float16, as records and raw cases are.
    """
    image, box = brain_box(volume)
    image = z_score(image)
    return tf.cast(tf.cast(image, tf.float16), tf.float32), box
