"""`ServedModel`: a model's signatures.

One run's network over whole volumes, in a graph.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.inference.ensemble import Ensemble
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
)
from kerasseg.serving.graph_postprocessing import label_from_masks, postprocessed_masks
from kerasseg.serving.graph_volume import Box, cut_to_brain, in_volume, to_grid, z_score
from kerasseg.serving.graph_window import sliding_window


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
            image, inner = cut_to_brain(image)
            box = Box(box.begin + inner.begin, inner.size)
        else:
            image = in_volume(image, box, shape, [0.0] * image.shape[-1])
            box = Box(tf.zeros_like(shape), shape)
        return self._slide(image), box

    def masks(self, probabilities: Any, spacing: Any, shape: Any) -> list[Any]:
        """Return K masks (d, h, w); `shape` (3,) is that of the whole volume."""
        predictor = self.predictor
        return postprocessed_masks(
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
        ways, total = self.predictor.orientations, tf.constant(0.0)
        for way in ways:
            found = way.undo(self._forward(way.apply(windows)))
            total = found if len(ways) == 1 else total + found / len(ways)
        return total[:, tf.newaxis] if flat else total


def normalised(volume: Any) -> tuple[Any, Box]:
    """Raw scan (D, H, W, C) -> what is in the box around the brain, and the box.

    In the store's precision, float16, as records and raw cases are.
    """
    image, box = cut_to_brain(volume)
    image = z_score(image)
    return tf.cast(tf.cast(image, tf.float16), tf.float32), box


class ServedModel:
    """`Model.predict` of an array as a graph, with the signatures of `docs/serving.md`.

    ids:      canonical id -> the id in a label, 255 at most
    metadata: what the signature `metadata` answers, name -> anything JSON can hold
    gzip:     whether `segment_bytes` takes compressed bytes
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
        members = [Member(run) for run in model.runs]
        self._members = tuple(members)
        channels = len(accepted.modalities)
        self._core = tf.function(
            self._segment,
            input_signature=[
                tf.TensorSpec((None, None, None, channels)),
                tf.TensorSpec((3,)),
                tf.TensorSpec((), tf.bool),
            ],
            autograph=False,
        )

    def save(self, folder: Path) -> None:
        """Write the SavedModel into `folder`; the weights are there once."""
        module = tf.Module(name="kerasseg")
        # The variables alone: a Keras object would be saved with all it can do.
        module.weights = [v.value for each in self._members for v in each.network.variables]
        module.windows = [each.weights for each in self._members]
        tf.saved_model.save(module, str(folder), signatures=self.signatures())

    def signatures(self) -> dict[str, Any]:
        """Name -> concrete function."""
        found = {
            "segment": _concrete(
                self._segment_volume,
                volume=tf.TensorSpec(None),
                spacing=tf.TensorSpec(None),
                probabilities=tf.TensorSpec(None, tf.bool),
            ),
            "segment_bytes": _concrete(
                self._segment_bytes,
                data_bytes=tf.TensorSpec(None, tf.string),
                shape=tf.TensorSpec(None, tf.int32),
                dtype=tf.TensorSpec(None, tf.string),
                compression=tf.TensorSpec(None, tf.string),
                spacing=tf.TensorSpec(None),
                probabilities=tf.TensorSpec(None, tf.bool),
            ),
            "metadata": _concrete(self._tell, request=tf.TensorSpec(None, tf.string)),
        }
        if self.patch is not None:
            shape = self._members[0].network.inputs[0].shape
            found["serving_default"] = _concrete(self._patches, patches=tf.TensorSpec(shape))
        return found

    @property
    def patch(self) -> tuple[int, ...] | None:
        """A patch of the training, (*patch, C), for `serving_default`.

        None where the networks do not take the same, such as slices and volumes: there is no such
        signature then.
        """
        if len({tuple(each.network.inputs[0].shape) for each in self._members}) > 1:
            return None
        first = self._members[0]
        return (*first.predictor.pipeline.patch_size, first.network.inputs[0].shape[-1])

    def _patches(self, patches: Any) -> dict[str, Any]:
        found = [member.network(patches, training=False) for member in self._members]
        return {"probabilities": tf.add_n(found) / len(found)}

    def _segment_volume(self, volume: Any, spacing: Any, probabilities: Any) -> dict[str, Any]:
        shape = check_shape(tf.shape(volume), self._accepted)
        volume = tf.reshape(volume, shape)
        volume.set_shape((None, None, None, len(self._accepted.modalities)))
        labels, found = self._checked(volume, spacing, probabilities)
        return {"labels": labels, "probabilities": found}

    def _segment_bytes(
        self,
        data_bytes: Any,
        shape: Any,
        dtype: Any,
        compression: Any,
        spacing: Any,
        probabilities: Any,
    ) -> dict[str, Any]:
        shape = check_shape(shape, self._accepted)
        volume = decode_volume(
            _scalar(data_bytes, "data_bytes"),
            shape,
            _scalar(dtype, "dtype"),
            _scalar(compression, "compression"),
            gzip=self._gzip,
        )
        volume.set_shape((None, None, None, len(self._accepted.modalities)))
        labels, found = self._checked(volume, spacing, probabilities)
        return {
            "labels_bytes": encode_values(labels),
            "probabilities_bytes": encode_values(tf.cast(found, tf.float16)),
            "shape": tf.shape(labels),
        }

    def _checked(self, volume: Any, spacing: Any, probabilities: Any) -> Any:
        return self._core(
            check_values(volume, self._accepted),
            check_spacing(spacing),
            _scalar(probabilities, "probabilities"),
        )

    def _segment(self, volume: Any, spacing: Any, wanted: Any) -> tuple[Any, Any]:
        found, masks, box = self._found(volume, spacing)
        target, shape = self._model.target, tf.shape(volume)[:3]
        empty = tf.zeros((0, 0, 0, len(anatomy.TARGETS[target])))
        background = self._members[0].predictor.background
        found = tf.cond(wanted, lambda: in_volume(found, box, shape, background), lambda: empty)
        label = label_from_masks(masks, target, self._ids)
        return box.put_back(label, shape, self._ids[anatomy.BACKGROUND]), found

    def _found(self, volume: Any, spacing: Any) -> tuple[Any, list[Any], Box]:
        """Raw scan -> probabilities (d, h, w, K), K masks (d, h, w), and the box of both.

        Outside of the box all is background.
        """
        scan, grid = tf.shape(volume)[:3], None
        if self._accepted.size is not None or self._accepted.spacing is not None:
            grid = to_grid(volume, spacing, self._accepted)
            volume = grid.volume
        image, brain = normalised(volume)
        shape = tf.shape(volume)[:3]
        whole: Any = self._model.segmenter
        boxes = {member.predictor.settings.brain_box for member in self._members}
        total = tf.constant(0.0)
        for member in self._members:
            found, box = member.probabilities(image, brain, shape)
            if len(boxes) > 1 or grid is not None:
                found = in_volume(found, box, shape, member.predictor.background)
                box = Box(tf.zeros_like(scan), scan)
            if grid is not None:
                found = grid.restore(found)
            if not isinstance(whole, Ensemble):
                return found, member.masks(found, spacing, scan), box
            if whole.combine == "vote":
                masks = member.masks(found, spacing, scan)
                found = tf.cast(tf.stack(masks, axis=-1), tf.float32)
            total += found
        total /= len(self._members)
        masks = postprocessed_masks(
            total, whole.target, spacing, whole.mask_threshold, whole.postprocessing, scan
        )
        return total, masks, box

    def _tell(self, request: Any) -> dict[str, Any]:
        names = tuple(self._metadata)
        answers = [json.dumps({name: value}) for name, value in self._metadata.items()]
        answers = [json.dumps(self._metadata), *answers]
        request = _scalar(request, "request")
        hit = tf.constant(("", *names)) == request
        words = f"request is {{}}, expected nothing, for everything, or one of {', '.join(names)}"
        with tf.control_dependencies([require(tf.reduce_any(hit), words, request)]):
            return {"json": tf.constant(answers)[tf.argmax(hit)]}


def _scalar(value: Any, name: str) -> Any:
    """A single value, also where it came as [value]."""
    words = f"{name} has the shape {{}}, expected a single value"
    with tf.control_dependencies([require(tf.size(value) == 1, words, tf.shape(value))]):
        return tf.reshape(value, [])


def _concrete(function: Any, **specs: Any) -> Any:
    named = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()]
    return tf.function(function, input_signature=named, autograph=False).get_concrete_function()
