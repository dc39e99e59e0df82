"""`Predictor`: a network that takes whole volumes.

An experiment's network -> its predictor.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from kerasseg.config.evaluation import EvaluationSettings, PostprocessingSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.pipeline import PipelineSettings
from kerasseg.inference.postprocessing import finished_masks
from kerasseg.inference.test_time_augmentation import Orientation, orientations
from kerasseg.inference.windows import (
    HostAccumulator,
    choose_accumulator,
    sliding_window,
    tensor_of,
)
from kerasseg.pipeline.augment.patch import AXES
from kerasseg.targets import air_probabilities

_AXIS_NAMES: Final = ("depth", "height", "width")
_ONE_MILLIMETRE: Final = (1.0, 1.0, 1.0)


class Predictor:
    """Wraps a network of patches for volumes of any size.

    The network maps (B, d, h, w, C) to (B, d, h, w, K), or, where `pipeline.patch_size` has two
    numbers, slices (B, h, w, C (2 n + 1)) to (B, h, w, K). A volume then goes through it slice by
    slice along `pipeline.slices.axis`, each with its n neighbours on both sides as channels: all
    modalities of the first neighbour, then of the next one; zeros outside the volume.

    `target` says what the K channels are and how probabilities become masks.

    Air is 0 in every channel. Outside the smallest box around the brain (`evaluation.brain_box`),
    and where a window sees nothing but air, everything is background for certain: probability 1 of
    the background of a softmax target, 0 of every channel of a sigmoid target.

    network, slice_axis (of a 2-D network, else None) and ways (the orientations) are what it is
    made of.

    With `evaluation.flips` and `evaluation.rotations` every window goes through the network
    mirrored and turned, too, and the probabilities, brought back, are averaged.
    """

    def __init__(
        self,
        network: keras.Model,
        pipeline: PipelineSettings,
        settings: EvaluationSettings,
        *,
        target: str,
        postprocessing: PostprocessingSettings = PostprocessingSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.network = network
        self.pipeline = pipeline
        self.settings = settings
        self.target = target
        self.postprocessing = postprocessing
        patch = pipeline.patch_size
        self.slice_axis = AXES[pipeline.slices.axis] if len(patch) == 2 else None
        axes = [name for index, name in enumerate(_AXIS_NAMES) if index != self.slice_axis]
        self.ways = orientations(settings, axes)
        # Not network.predict: Keras would compile it with XLA, which is slow on a CPU. One
        # signature: the last batch may be smaller, and must not be traced anew.
        signature = [tf.TensorSpec((None, *patch, network.inputs[0].shape[-1]))]
        self._forward = tf.function(
            lambda batch: network(batch, training=False),
            input_signature=signature,
            autograph=False,
        )

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    def probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> probabilities (D, H, W, K) float32."""
        return self._slide(volume, self.ways)

    def members(self, volume: np.ndarray) -> Iterator[np.ndarray]:
        """The probabilities (D, H, W, K) of each orientation by itself; their mean is that of
        `probabilities`. Without test-time augmentation there is one."""
        for orientation in self.ways:
            yield self._slide(volume, [orientation])

    def masks(self, volume: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Normalised volume (D, H, W, C) -> one boolean mask per channel (D, H, W, K).

        A sigmoid target holds from its threshold on, a softmax target where it is the most probable
        of the averaged windows; then `postprocessing` is done.

        spacing: voxel size (D, H, W) in mm; None: 1 mm
        """
        size = _ONE_MILLIMETRE if spacing is None else spacing
        return self.masks_of(self.probabilities(volume), size)

    def masks_of(self, probabilities: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """What `masks` makes of probabilities (D, H, W, K)."""
        return finished_masks(
            probabilities, self.target, spacing, self.settings.threshold, self.postprocessing
        )

    @property
    def orientations(self) -> int:
        """How many members there are; 1 without test-time augmentation."""
        return len(self.ways)

    @property
    def background(self) -> list[float]:
        """The K probabilities of air."""
        return air_probabilities(self.target)

    def _slide(self, volume: np.ndarray, chosen: Sequence[Orientation]) -> np.ndarray:
        patch, axis, settings = self.pipeline.patch_size, self.slice_axis, self.settings
        gpus = len(tf.config.list_logical_devices("GPU"))
        voxels = int(np.prod(volume.shape[:3]))
        accumulator = choose_accumulator(voxels, len(self.background), settings.device_memory, gpus)

        def predict(windows: np.ndarray) -> Any:
            """(B, d + 2 n, h, w, C) -> (B, d, h, w, K); slices have a depth of 1."""
            if axis is not None:
                count, _, height, width, _ = windows.shape
                windows = np.moveaxis(windows, 1, 3).reshape(count, height, width, -1)
            found = self._predict(windows, chosen)
            if axis is not None:
                found = found[:, tf.newaxis]
            # A whole batch at once, as TensorFlow copies a tensor for every part that is taken. Not
            # .numpy(), which copies, too.
            return np.asarray(found) if accumulator is HostAccumulator else found

        result = sliding_window(
            predict,
            volume if axis is None else np.moveaxis(volume, axis, 0),
            patch if axis is None else (1, *patch),
            self.background,
            overlap=settings.overlap,
            weighting=settings.weighting,
            batch=settings.window_batch,
            context=0 if axis is None else self.pipeline.slices.neighbours,
            brain_box=settings.brain_box,
            accumulator=accumulator,
        )
        return result if axis is None else np.moveaxis(result, 0, axis)

    def _predict(self, windows: np.ndarray, chosen: Sequence[Orientation]) -> Any:
        total: Any = 0.0
        batch = tensor_of(windows)
        for orientation in chosen:
            found = orientation.undo(self._forward(orientation.apply(batch)))
            total = found if len(chosen) == 1 else total + found / len(chosen)
        return total


def build_predictor(experiment: Experiment, network: keras.Model) -> Predictor:
    """As the sections `pipeline`, `evaluation` and `postprocessing` say."""
    return Predictor(
        network,
        experiment.pipeline,
        experiment.evaluation,
        target=experiment.model.target,
        postprocessing=experiment.postprocessing,
    )
