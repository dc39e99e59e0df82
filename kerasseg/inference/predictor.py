"""A network of patches as a predictor of whole volumes."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import keras
import numpy as np
import tensorflow as tf

from kerasseg.config.evaluation import EvaluationSettings, PostprocessingSettings
from kerasseg.config.experiment import Experiment
from kerasseg.config.pipeline import PipelineSettings
from kerasseg.errors import UserError
from kerasseg.inference.postprocessing import keep_largest, postprocessed_masks
from kerasseg.inference.test_time_augmentation import (
    Orientation,
    mean_over_orientations,
    orientations,
)
from kerasseg.inference.windows import (
    HostAccumulator,
    choose_accumulator,
    clear_air,
    sliding_window,
)
from kerasseg.pipeline.augment.patch import AXES
from kerasseg.targets import air_probabilities

if TYPE_CHECKING:
    from kerasseg.records.store import RecordStore
    from kerasseg.run import Run

_AXIS_NAMES: Final = ("depth", "height", "width")
_ONE_MILLIMETRE: Final = (1.0, 1.0, 1.0)
_ALIGNMENT: Final = 64
"""Bytes; TensorFlow's kernels need it of every tensor, NumPy's arrays seldom have it."""


class Predictor:
    """A network with the settings that take a whole volume through it, window by window.

    The network maps (B, d, h, w, C) to (B, d, h, w, K), or, if `pipeline.patch_size` has two
    numbers, slices (B, h, w, C (2 n + 1)) to (B, h, w, K). A volume then goes through it slice by
    slice along `pipeline.slices.axis`, each with its n neighbours on both sides as channels: all
    modalities of the first neighbour, then of the next one, and zeros outside the volume.

    Air is 0 in every channel, or the darkest value of each channel if scans are not skull-stripped.
    It lies outside the volume, too. Outside the smallest box around the brain
    (`evaluation.brain_box`), in windows of air alone and, with `evaluation.air_is_background`, in
    every voxel of air everything is certainly background.

    Attributes:
        network: the network. Its weights may still change: validation in training uses it, too.
        target: what the K channels are, a key of `anatomy.TARGETS`.
        slice_axis: the axis along which a 2-D network's slices are taken, or None.
        window: the size (d, h, w) of a window in voxels; of slices d is 1, along `slice_axis`.
        context: the number of planes that the network sees beyond both sides of a window.
        orientations: the orientations of the test-time augmentation, one without it.
        background: the K probabilities of air.
        skull_stripped: whether air is 0 in a volume; else it is the darkest value of each channel.
        prompt: what the network is told of a scan, in words; empty for networks that take nothing.
        boxes_from: the run whose masks give the network its boxes, or None.
    """

    def __init__(
        self,
        network: keras.Model,
        pipeline: PipelineSettings,
        settings: EvaluationSettings,
        *,
        target: str,
        postprocessing: PostprocessingSettings = PostprocessingSettings(),  # noqa: B008 (frozen)
        skull_stripped: bool = True,
        prompt: str = "",
        boxes_from: Path | None = None,
    ) -> None:
        self.network = network
        self.pipeline = pipeline
        self.settings = settings
        self.target = target
        self.postprocessing = postprocessing
        self.skull_stripped = skull_stripped
        self.prompt = prompt
        self.boxes_from = boxes_from
        patch = pipeline.patch_size
        self.slice_axis = AXES[pipeline.slices.axis] if len(patch) == 2 else None
        self.context = 0 if self.slice_axis is None else pipeline.slices.neighbours
        self.window = (patch[0] if len(patch) == 3 else 1, patch[-2], patch[-1])
        axes = [name for index, name in enumerate(_AXIS_NAMES) if index != self.slice_axis]
        self.orientations = orientations(settings, axes)
        self.background = air_probabilities(target)
        # Not network.predict: Keras would compile it with XLA, which is slow on a CPU. One
        # signature: the last batch may be smaller, and must not be traced anew.
        widths = [x.shape[-1] for x in network.inputs]
        self.takes_prompt = len(widths) > 1

        def forward(batch: tf.Tensor) -> tf.Tensor:
            parts = tf.split(batch, widths, axis=-1) if self.takes_prompt else batch
            return network(parts, training=False)

        signature = [tf.TensorSpec((None, *patch, sum(widths)))]
        self._forward = tf.function(forward, input_signature=signature, autograph=False)

    @property
    def name(self) -> str:
        """The network's name."""
        return self.network.name

    @cached_property
    def box_run(self) -> "tuple[Run, Predictor] | None":
        """The run of `boxes_from` with its predictor, which is loaded once."""
        if self.boxes_from is None:
            return None
        from kerasseg.run import read_run  # which loads what trials of searches do without

        run = read_run(self.boxes_from)
        predictor = build_predictor(run.experiment, run.load_network())
        if predictor.prompt not in ("", "none"):
            raise UserError(
                f"model.sam.boxes_from: {run.folder} takes a prompt itself ({predictor.prompt}): "
                "name a run that needs none."
            )
        return run, predictor

    @cached_property
    def box_store(self) -> "RecordStore":
        """The record store of the run of `boxes_from`, which may hold other intensities."""
        assert self.box_run is not None
        return self.box_run[0].open_store()

    def with_prompt(self, volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return a volume (D, H, W, C) with a mask (D, H, W), of which prompts are made, behind it.

        Of each slice of another run's mask only the largest component counts.
        """
        mask = mask > 0
        if self.boxes_from is not None:
            mask = np.moveaxis(mask, self.slice_axis or 0, 0)
            mask = np.concatenate([keep_largest(plane) for plane in mask[:, np.newaxis]])
            mask = np.moveaxis(mask, 0, self.slice_axis or 0)
        return np.concatenate([volume, mask[..., np.newaxis]], axis=-1, dtype=np.float32)

    def probabilities(self, volume: np.ndarray) -> np.ndarray:
        """Return the probabilities (D, H, W, K) float32 of a normalised volume (D, H, W, C).

        A network with a prompt takes what `with_prompt` returns.
        """
        return self._sliding_window(volume, self.orientations)

    def members(self, volume: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the probabilities (D, H, W, K) of each orientation by itself.

        Their mean is what `probabilities` returns.
        """
        for orientation in self.orientations:
            yield self._sliding_window(volume, [orientation])

    def masks(self, volume: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Return the post-processed masks (D, H, W, K) bool of a normalised volume (D, H, W, C).

        `spacing` is the voxel size (D, H, W) in mm, by default 1 mm.
        """
        size = _ONE_MILLIMETRE if spacing is None else spacing
        return self.masks_from_probabilities(self.probabilities(volume), size)

    def masks_from_probabilities(
        self, probabilities: np.ndarray, spacing: Sequence[float]
    ) -> np.ndarray:
        """Return the post-processed masks (D, H, W, K) bool of probabilities (D, H, W, K)."""
        return postprocessed_masks(
            probabilities, self.target, spacing, self.settings.threshold, self.postprocessing
        )

    def _sliding_window(self, volume: np.ndarray, chosen: Sequence[Orientation]) -> np.ndarray:
        axis, settings = self.slice_axis, self.settings
        gpus = len(tf.config.list_logical_devices("GPU"))
        voxels = int(np.prod(volume.shape[:3]))
        accumulator = choose_accumulator(voxels, len(self.background), settings.device_memory, gpus)
        darkest: np.ndarray | None = None
        if not self.skull_stripped:
            # Air is 0 for all that follows, and what it is for the network alone.
            darkest = volume.min(axis=(0, 1, 2))
            if self.takes_prompt:
                darkest[-1] = 0  # the prompt's mask is no picture
            volume = volume - darkest

        def predict(windows: np.ndarray) -> Any:
            """Map (B, d + 2 context, h, w, C) to (B, d, h, w, K)."""
            if darkest is not None:
                windows = windows + darkest
            if axis is not None:
                windows = neighbours_as_channels(windows, np)
            found = self._predict(windows, chosen)
            if axis is not None:
                found = found[:, tf.newaxis]
            # A whole batch at once, as TensorFlow copies a tensor for every part that is taken. Not
            # .numpy(), which copies, too.
            return np.asarray(found) if accumulator is HostAccumulator else found

        result = sliding_window(
            predict,
            volume if axis is None else np.moveaxis(volume, axis, 0),
            self.window,
            self.background,
            overlap=settings.overlap,
            weighting=settings.weighting,
            batch=settings.window_batch,
            context=self.context,
            brain_box=settings.brain_box,
            prompted=self.takes_prompt,
            accumulator=accumulator,
        )
        if axis is not None:
            result = np.moveaxis(result, 0, axis)
        if settings.air_is_background:
            clear_air(result, volume, self.background)
        return result

    def _predict(self, windows: np.ndarray, chosen: Sequence[Orientation]) -> Any:
        return mean_over_orientations(self._forward, aligned_tensor(windows), chosen)


def build_predictor(experiment: Experiment, network: keras.Model) -> Predictor:
    """Return a predictor with the settings of an experiment, the prompt of a SAM among them."""
    model, prompt, boxes_from = experiment.model, "", None
    if model.network == "sam":
        from kerasseg.models.sam.network import with_prompt  # which can read runs

        network = with_prompt(network, model)
        prompt, boxes_from = model.sam.described_prompt, model.sam.boxes_from
    return Predictor(
        network,
        experiment.pipeline,
        experiment.evaluation,
        target=experiment.model.target,
        postprocessing=experiment.postprocessing,
        skull_stripped=experiment.data.skull_stripped,
        prompt=prompt,
        boxes_from=boxes_from,
    )


def neighbours_as_channels(windows: Any, library: Any) -> Any:
    """Return windows of neighbouring slices (B, n, h, w, C) as slices (B, h, w, n C).

    `library` is `numpy`, or `tensorflow` in the graph of an exported model.
    """
    _, planes, height, width, channels = windows.shape
    windows = library.transpose(windows, (0, 2, 3, 1, 4))
    return library.reshape(windows, (-1, height, width, planes * channels))


def aligned_tensor(array: np.ndarray) -> tf.Tensor:
    """Return a float32 array of any strides as a tensor in the computer's memory, with one copy.

    `tf.convert_to_tensor` copies twice: against later changes of the array, and to align it. Both
    copies live as long as the tensor.
    """
    memory = np.empty(array.size * 4 + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    aligned = memory[first : first + array.size * 4].view(np.float32).reshape(array.shape)
    aligned[...] = array
    return tf.experimental.dlpack.from_dlpack(aligned.__dlpack__())
