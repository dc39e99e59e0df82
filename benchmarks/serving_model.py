"""A small SavedModel with the signatures and the checks of `kerasseg export`, but no network.

`python -m benchmarks.serving_model FOLDER [THRESHOLD [SECONDS]]` writes one.

Its predictions can be computed without it: NCR (1) where FLAIR is above the threshold, ET (4) where
T1 is, too; every region's probability is the sigmoid of a modality divided by a hundred.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasseg.serving.graph_input import (
    Accepted,
    check_shape,
    check_spacing,
    check_values,
    decode_volume,
    encode_values,
)

MODALITIES = ("flair", "t1", "t1ce", "t2")
CHANNELS = len(MODALITIES)
ACCEPTED = Accepted(MODALITIES, 2**26, volumes=False)
LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 4}
METADATA = {
    "modalities": MODALITIES,
    "channels": ["WT", "TC", "ET"],
    "dimensions": 3,
    "spacing": None,
    "labels": LABELS,
    "colours": {},
    "target": "regions",
    "regions": ["WT", "TC", "ET"],
    "config": {},
    "score": None,
    "versions": {},
}


def expected_label(image: np.ndarray, threshold: float = 100) -> np.ndarray:
    """Return the label (D, H, W) in the data set's ids, computed by NumPy."""
    tumour, enhancing = image[..., 0] > threshold, image[..., 1] > threshold
    return np.where(tumour, np.where(enhancing, 4, 1), 0).astype(np.uint8)


def expected_probabilities(image: np.ndarray) -> np.ndarray:
    """Return the probabilities (D, H, W, 3) float32, computed by NumPy."""
    return (1 / (1 + np.exp(-image[..., :3].astype(np.float64) / 100))).astype(np.float32)


class Tiny(tf.Module):
    """The signatures; `threshold` is the intensity above which there is tumour, and a request takes
    `seconds` at least."""

    def __init__(self, threshold: float, seconds: float = 0.0) -> None:
        super().__init__()
        self.threshold = tf.Variable(threshold, trainable=False)
        self.seconds = seconds

    def _segment(self, volume: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self.seconds:
            # The only op that sleeps is that of a data set.
            zero = tf.data.Dataset.from_tensors(0.0)
            sleeping = tf.raw_ops.SleepDataset(
                input_dataset=tf.data.experimental.to_variant(zero),
                sleep_microseconds=tf.constant(int(self.seconds * 1e6), tf.int64),
                output_types=[tf.float32],
                output_shapes=[()],
            )
            spec = tf.TensorSpec([], tf.float32)
            slept = tf.data.experimental.from_variant(sleeping, spec).get_single_element()
            volume = volume + slept
        tumour, enhancing = volume[..., 0] > self.threshold, volume[..., 1] > self.threshold
        labels = tf.where(tumour, tf.where(enhancing, 4, 1), 0)
        maps = tf.sigmoid(volume[..., :3] / 100)
        none = tf.zeros((0, 0, 0, 3))
        return tf.cast(labels, tf.uint8), tf.cond(probabilities, lambda: maps, lambda: none)

    @tf.function
    def segment(
        self, volume: tf.Tensor, spacing: tf.Tensor, probabilities: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Segment a volume given as an array."""
        shape = check_shape(tf.shape(volume), ACCEPTED)
        labels, maps = self._checked(tf.reshape(volume, shape), spacing, probabilities)
        return {"labels": labels, "probabilities": maps}

    @tf.function
    def segment_bytes(
        self,
        data_bytes: tf.Tensor,
        shape: tf.Tensor,
        dtype: tf.Tensor,
        compression: tf.Tensor,
        spacing: tf.Tensor,
        probabilities: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Segment a volume given as bytes."""
        shape = check_shape(shape, ACCEPTED)
        volume = decode_volume(data_bytes, shape, dtype, compression, gzip=True)
        labels, maps = self._checked(volume, spacing, probabilities)
        return {
            "labels_bytes": encode_values(labels),
            "probabilities_bytes": encode_values(tf.cast(maps, tf.float16)),
            "shape": tf.shape(labels),
        }

    def _checked(
        self, volume: tf.Tensor, spacing: tf.Tensor, probabilities: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        volume.set_shape((None, None, None, CHANNELS))
        with tf.control_dependencies([check_spacing(spacing)]):
            return self._segment(check_values(volume, ACCEPTED), probabilities)

    @tf.function
    def metadata(self, request: tf.Tensor) -> dict[str, tf.Tensor]:
        """Answer the description of the model."""
        return {"json": tf.constant(json.dumps(METADATA))}

    @tf.function
    def patches(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predict patches, as `serving_default`."""
        return {"probabilities": tf.sigmoid(inputs[..., :3] / 100)}


def write_model(folder: Path, threshold: float = 100.0, seconds: float = 0.0) -> Path:
    """Write `folder`/saved_model.pb aside and rename it, as kerasseg export does."""
    tiny = Tiny(threshold, seconds)
    scalar, text = tf.TensorSpec([], tf.bool), tf.TensorSpec([], tf.string)
    # Open, as those of `kerasseg export`: the graph checks the shapes.
    volume, spacing = tf.TensorSpec(None, tf.float32), tf.TensorSpec(None, tf.float32)
    aside = folder.with_name(f".{folder.name}.incomplete")
    aside.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(
        tiny,
        str(aside),
        signatures={
            "segment": tiny.segment.get_concrete_function(volume, spacing, scalar),
            "segment_bytes": tiny.segment_bytes.get_concrete_function(
                text, tf.TensorSpec(None, tf.int32), text, text, spacing, scalar
            ),
            "metadata": tiny.metadata.get_concrete_function(text),
            "serving_default": tiny.patches.get_concrete_function(
                tf.TensorSpec([None, None, None, None, CHANNELS], tf.float32)
            ),
        },
    )
    aside.rename(folder)
    return folder


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), *map(float, sys.argv[2:]))
