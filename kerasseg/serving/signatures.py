"""The signatures of an exported model: everything from a raw scan to a label, as TensorFlow graphs.

`docs/savedmodel.md` describes them for clients.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.postprocessing import channel_thresholds
from kerasseg.inference.predictor import neighbours_as_channels
from kerasseg.inference.test_time_augmentation import mean_over_orientations
from kerasseg.inference.windows import window_weights
from kerasseg.models.build import float32_twin
from kerasseg.prediction.model import LoadedRun, Model
from kerasseg.serving.graph_input import (
    Accepted,
    check_shape,
    check_spacing,
    check_values,
    decode_volume,
    encode_values,
    require,
    voxel_warning,
)
from kerasseg.serving.graph_postprocessing import label_from_masks, postprocessed_masks
from kerasseg.serving.graph_volume import (
    Box,
    clear_air,
    cut_to_brain,
    in_volume,
    to_grid,
    to_unit,
    z_score,
)
from kerasseg.serving.graph_window import sliding_window
from kerasseg.targets import channel_masks


class ExportedModel:
    """`Model.predict` of an array as a graph, and its signatures.

    Args:
        model: One run, or several as an ensemble.
        accepted: The volumes that the signatures take.
        ids: Canonical label id to the id that is written, at most 255.
        metadata: The answers of the signature `metadata`: name to anything that JSON can hold.
        gzip: Whether `segment_bytes` takes compressed bytes.
    """

    def __init__(
        self,
        model: Model,
        accepted: Accepted,
        ids: Mapping[int, int],
        metadata: Mapping[str, Any],
        *,
        gzip: bool = True,
    ) -> None:
        self._model = model
        self._accepted = accepted
        self._ids = dict(ids)
        self._metadata = dict(metadata)
        self._gzip = gzip
        self._runs = tuple(RunGraph(run) for run in model.runs)
        # `segment` and `segment_bytes` share one graph of the work that both do.
        self._segment = tf.function(
            self._segment_checked,
            input_signature=[
                tf.TensorSpec((None, None, None, len(accepted.modalities))),
                tf.TensorSpec((3,)),
                tf.TensorSpec((), tf.bool),
            ],
            autograph=False,
        )

    def save(self, folder: Path) -> None:
        """Write the SavedModel into `folder`, with each weight stored once."""
        module = tf.Module(name="kerasseg")
        # The variables alone: a Keras object would be saved with all its own functions.
        module.weights = [v.value for run in self._runs for v in run.network.variables]
        module.windows = [run.window_weights for run in self._runs]
        tf.saved_model.save(module, str(folder), signatures=self.signatures())

    def signatures(self) -> dict[str, Any]:
        """Return the concrete function of each signature by its name.

        The shapes are left open: the graphs check them themselves, and refuse with a sentence.
        """
        signatures = {
            "segment": _concrete(
                self._segment_volume, volume=tf.float32, spacing=tf.float32, probabilities=tf.bool
            ),
            "segment_bytes": _concrete(
                self._segment_bytes,
                data_bytes=tf.string,
                shape=tf.int32,
                dtype=tf.string,
                compression=tf.string,
                spacing=tf.float32,
                probabilities=tf.bool,
            ),
            "metadata": _concrete(self._answer_metadata, request=tf.string),
        }
        if self.patch is not None:
            shape = self._runs[0].network.inputs[0].shape
            signatures["serving_default"] = _concrete(
                self._predict_patches, shape, patches=tf.float32
            )
        return signatures

    @property
    def patch(self) -> tuple[int, ...] | None:
        """Shape (*patch, C) of a training patch, which `serving_default` takes.

        It is None if the networks do not take the same patches, such as slices and volumes: there
        is no such signature then.
        """
        if len({tuple(run.network.inputs[0].shape) for run in self._runs}) > 1:
            return None
        first = self._runs[0]
        return (*first.predictor.pipeline.patch_size, first.network.inputs[0].shape[-1])

    @property
    def _votes(self) -> bool:
        whole = self._model.segmenter
        return isinstance(whole, Ensemble) and whole.votes

    def _predict_patches(self, patches: Any) -> dict[str, Any]:
        total = tf.constant(0.0)
        for run in self._runs:
            found = run.network(patches, training=False)
            total += run.votes(found) if self._votes else found
        return {"probabilities": total / len(self._runs)}

    def _segment_volume(self, volume: Any, spacing: Any, probabilities: Any) -> dict[str, Any]:
        shape = check_shape(tf.shape(volume), self._accepted)
        labels, found, warnings = self._check_and_segment(
            tf.reshape(volume, shape), spacing, probabilities
        )
        return {"labels": labels, "probabilities": found, "warnings": warnings}

    def _segment_bytes(
        self,
        data_bytes: Any,
        shape: Any,
        dtype: Any,
        compression: Any,
        spacing: Any,
        probabilities: Any,
    ) -> dict[str, Any]:
        volume = decode_volume(
            _scalar(data_bytes, "data_bytes"),
            check_shape(shape, self._accepted),
            _scalar(dtype, "dtype"),
            _scalar(compression, "compression"),
            gzip=self._gzip,
        )
        labels, found, warnings = self._check_and_segment(volume, spacing, probabilities)
        return {
            "labels_bytes": encode_values(labels),
            "probabilities_bytes": encode_values(tf.cast(found, tf.float16)),
            "shape": tf.shape(labels),
            "warnings": warnings,
        }

    def _check_and_segment(
        self, volume: Any, spacing: Any, probabilities: Any
    ) -> tuple[Any, Any, Any]:
        volume.set_shape((None, None, None, len(self._accepted.modalities)))
        spacing = check_spacing(spacing)
        labels, found = self._segment(
            check_values(volume, self._accepted), spacing, _scalar(probabilities, "probabilities")
        )
        return labels, found, voxel_warning(spacing, self._accepted)

    def _segment_checked(self, volume: Any, spacing: Any, wants_maps: Any) -> tuple[Any, Any]:
        found, masks, box = self._masks(volume, spacing)
        target, shape = self._model.target, tf.shape(volume)[:3]
        empty = tf.zeros((0, 0, 0, len(anatomy.TARGETS[target])))
        background = self._runs[0].predictor.background
        found = tf.cond(wants_maps, lambda: in_volume(found, box, shape, background), lambda: empty)
        label = label_from_masks(masks, target, self._ids)
        return box.put_back(label, shape, self._ids[anatomy.BACKGROUND]), found

    def _masks(self, volume: Any, spacing: Any) -> tuple[Any, list[Any], Box]:
        """Return probabilities (d, h, w, K), K masks (d, h, w), and the box that both are cut to.

        Everything outside of the box is background.
        """
        raw, scan, grid = volume, tf.shape(volume)[:3], None
        if self._accepted.size is not None or self._accepted.spacing is not None:
            grid = to_grid(volume, spacing, self._accepted)
            volume = grid.volume
        stripped = self._runs[0].predictor.skull_stripped  # of all of them: `export.accepted_by`
        scheme = self._model.runs[0].experiment.data.normalisation
        image, brain = normalised(volume, skull_stripped=stripped, normalisation=scheme)
        shape = tf.shape(volume)[:3]
        whole: Any = self._model.segmenter
        # Runs with and without the brain box do not give the same box, so the sum is of the whole.
        boxes = {run.predictor.settings.brain_box for run in self._runs}
        total = tf.constant(0.0)
        for run in self._runs:
            found, box = run.probabilities(image, brain, shape)
            if len(boxes) > 1 or grid is not None:
                found = in_volume(found, box, shape, run.predictor.background)
                box = Box(tf.zeros_like(scan), scan)
            if grid is not None:
                found = grid.restore(found)
                if run.predictor.settings.air_is_background:
                    # Interpolation has brought tissue's probabilities into the air beside it.
                    cleared = clear_air(found, raw, run.predictor.background)
                    found = tf.where(grid.same, found, cleared)
            if not isinstance(whole, Ensemble):
                return found, run.masks(found, spacing, scan), box
            if self._votes:
                found = tf.cast(tf.stack(run.masks(found, spacing, scan), axis=-1), tf.float32)
            total += found
        total /= len(self._runs)
        masks = postprocessed_masks(
            total, whole.target, spacing, whole.mask_threshold, whole.postprocessing, scan
        )
        return total, masks, box

    def _answer_metadata(self, request: Any) -> dict[str, Any]:
        names = tuple(self._metadata)
        answers = [json.dumps({name: value}) for name, value in self._metadata.items()]
        answers = [json.dumps(self._metadata), *answers]
        request = _scalar(request, "request")
        hit = tf.constant(("", *names)) == request
        expected = f"expected nothing, for everything, or one of {', '.join(names)}"
        known = require(tf.reduce_any(hit), f"request is {{}}, {expected}", request)
        with tf.control_dependencies([known]):
            return {"json": tf.constant(answers)[tf.argmax(hit)]}


class RunGraph:
    """One run as a graph: `LoadedRun` and `Predictor` for a scan that is on the run's grid already.

    Attributes:
        network: The network in float32, whatever precision it was trained in.
        window_weights: Weights (d, h, w) float32 of a window's voxels, as a variable so that they
            are saved once.
    """

    def __init__(self, run: LoadedRun) -> None:
        predictor = run.predictor
        self.predictor = predictor
        self.network = float32_twin(predictor.network)
        patch = predictor.pipeline.patch_size
        weights = window_weights(predictor.window, predictor.settings.weighting)
        self.window_weights = tf.Variable(weights, trainable=False, name="window_weights")
        channels = self.network.inputs[0].shape[-1]
        self._forward = tf.function(
            lambda batch: self.network(batch, training=False),
            input_signature=[tf.TensorSpec((None, *patch, channels))],
            autograph=False,
        )

    def probabilities(self, image: Any, box: Box, shape: Any) -> tuple[Any, Box]:
        """Return probabilities (d, h, w, K) float32, and the box that they are cut to.

        Args:
            image: Normalised scan (d, h, w, C), cut to `box`; outside of it there is air.
            box: Place of `image` in the scan.
            shape: (3,), of the whole scan.

        The returned box is the brain's or the whole scan; outside of it all is background.
        """
        darkest: Any = None
        if not self.predictor.skull_stripped:
            darkest = tf.reduce_min(image, (0, 1, 2))
            image -= darkest  # as in Python, air is 0 for all but the network
        if self.predictor.settings.brain_box:
            image, inner = cut_to_brain(image)
            box = Box(box.begin + inner.begin, inner.size)
        else:
            image = in_volume(image, box, shape, [0.0] * image.shape[-1])
            box = Box(tf.zeros_like(shape), shape)
        found = self._slide(image, darkest)
        if self.predictor.settings.air_is_background:
            found = clear_air(found, image, self.predictor.background)
        return found, box

    def masks(self, probabilities: Any, spacing: Any, shape: Any) -> list[Any]:
        """Return K post-processed masks (d, h, w) bool; `shape` (3,) is that of the whole scan."""
        predictor = self.predictor
        return postprocessed_masks(
            probabilities,
            predictor.target,
            spacing,
            predictor.settings.threshold,
            predictor.postprocessing,
            shape,
        )

    def votes(self, probabilities: Any) -> Any:
        """Return 1 where the run's thresholds give a mask and 0 elsewhere, (B, …, K) float32.

        Nothing else of the post-processing is done, as it needs the whole volume.
        """
        predictor = self.predictor
        thresholds = channel_thresholds(
            predictor.target, predictor.settings.threshold, predictor.postprocessing
        )
        channels = tf.unstack(probabilities, axis=-1)
        masks = list(channel_masks(channels, predictor.target, thresholds, tf.maximum))
        return tf.cast(tf.stack(masks, axis=-1), tf.float32)

    def _slide(self, image: Any, darkest: Any) -> Any:
        predictor, axis = self.predictor, self.predictor.slice_axis
        # Windows go along the first axis, so the axis of the slices becomes it.
        order = [0, 1, 2] if axis is None else [axis, *(a for a in range(3) if a != axis)]
        if order != [0, 1, 2]:
            image = tf.transpose(image, [*order, 3])
        found = sliding_window(
            self._predict if darkest is None else lambda windows: self._predict(windows + darkest),
            image,
            predictor.window,
            predictor.background,
            self.window_weights,
            overlap=predictor.settings.overlap,
            batch=predictor.settings.window_batch,
            context=predictor.context,
        )
        if order == [0, 1, 2]:
            return found
        return tf.transpose(found, [*(order.index(a) for a in range(3)), 3])

    def _predict(self, windows: Any) -> Any:
        """Map (B, d + 2 n, h, w, C) to (B, d, h, w, K); slices have d = 1 and n neighbours."""
        flat = self.predictor.slice_axis is not None
        if flat:
            windows = neighbours_as_channels(windows, tf)
        found = mean_over_orientations(self._forward, windows, self.predictor.orientations)
        return found[:, tf.newaxis] if flat else found


def normalised(
    volume: Any, *, skull_stripped: bool = True, normalisation: str = "z_score"
) -> tuple[Any, Box]:
    """Return a raw scan (D, H, W, C) normalised and cut to the box around the brain, and the box.

    A scan that is not skull-stripped stays whole, and what is 0 in it gets its darkest value. The
    values are rounded to float16, as those of a store are.
    """
    if skull_stripped:
        image, box = cut_to_brain(volume)
    else:
        shape = tf.shape(volume)[:3]
        image, box = volume, Box(tf.zeros_like(shape), shape)
    if normalisation == "percentiles":
        scores = to_unit(image)
    else:
        scores = z_score(image, None if skull_stripped else tf.reduce_min(volume, (0, 1, 2)))
    return tf.cast(tf.cast(scores, tf.float16), tf.float32), box


def _scalar(value: Any, name: str) -> Any:
    """Return a single value, also where it came as [value]; the graph refuses several."""
    sentence = f"{name} has the shape {{}}, expected a single value"
    with tf.control_dependencies([require(tf.size(value) == 1, sentence, tf.shape(value))]):
        return tf.reshape(value, [])


def _concrete(function: Any, shape: Any = None, /, **dtypes: Any) -> Any:
    named = [tf.TensorSpec(shape, dtype, name) for name, dtype in dtypes.items()]
    return tf.function(function, input_signature=named, autograph=False).get_concrete_function()
