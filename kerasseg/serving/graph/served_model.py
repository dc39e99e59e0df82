"""`ServedModel`: a model's signatures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.inference.ensemble import Ensemble
from kerasseg.prediction.model import Model
from kerasseg.serving.graph.box import Box, in_volume
from kerasseg.serving.graph.bytes import decode_volume, encode_values
from kerasseg.serving.graph.check_volume import (
    Accepted,
    check_shape,
    check_spacing,
    check_values,
)
from kerasseg.serving.graph.finished_masks import finished_masks, label_of
from kerasseg.serving.graph.member import Member, normalised
from kerasseg.serving.graph.require import require
from kerasseg.serving.graph.run_grid import on_grid


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
        label = label_of(masks, target, self._ids)
        return box.put_back(label, shape, self._ids[anatomy.BACKGROUND]), found

    def _found(self, volume: Any, spacing: Any) -> tuple[Any, list[Any], Box]:
        """Raw scan -> probabilities (d, h, w, K), K masks (d, h, w), and the box of both.

        Outside of the box all is background.
        """
        scan, grid = tf.shape(volume)[:3], None
        if self._accepted.size is not None or self._accepted.spacing is not None:
            grid = on_grid(volume, spacing, self._accepted)
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
        masks = finished_masks(
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
