"""A small SavedModel with the signatures of `kerasseg export`, from a plain tf.Module.

`python -m benchmarks.serving_model FOLDER [THRESHOLD [SECONDS]]` writes one.

What it predicts can be said without it: NCR (1) where FLAIR is above the threshold, ET (4) where T1
is, too; every region's probability is the sigmoid of a modality divided by a hundred.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

MODALITIES = ("flair", "t1", "t1ce", "t2")
CHANNELS = len(MODALITIES)
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
    """(D, H, W) in the data set's ids, by NumPy."""
    tumour, enhancing = image[..., 0] > threshold, image[..., 1] > threshold
    return np.where(tumour, np.where(enhancing, 4, 1), 0).astype(np.uint8)


def expected_probabilities(image: np.ndarray) -> np.ndarray:
    """(D, H, W, 3) float32, by NumPy."""
    return (1 / (1 + np.exp(-image[..., :3].astype(np.float64) / 100))).astype(np.float32)


class Tiny(tf.Module):
    """threshold: above it is tumour. seconds: how long a request takes at least."""

    def __init__(self, threshold: float, seconds: float = 0.0) -> None:
        super().__init__()
        self.threshold = tf.Variable(threshold, trainable=False)
        self.seconds = seconds

    def _segment(self, volume: tf.Tensor, probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A graph cannot sleep.
        until = tf.timestamp() + self.seconds
        busy = tf.while_loop(
            lambda x: tf.timestamp() < until, lambda x: (tf.linalg.matmul(x, x),), (tf.eye(200),)
        )[0][0, 0]
        volume = volume + tf.cast(busy > 1e30, tf.float32)  # never
        tumour, enhancing = volume[..., 0] > self.threshold, volume[..., 1] > self.threshold
        labels = tf.where(tumour, tf.where(enhancing, 4, 1), 0)
        maps = tf.sigmoid(volume[..., :3] / 100)
        none = tf.zeros((0, 0, 0, 3))
        return tf.cast(labels, tf.uint8), tf.cond(probabilities, lambda: maps, lambda: none)

    @tf.function
    def segment(
        self, volume: tf.Tensor, spacing: tf.Tensor, probabilities: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Raw intensities -> labels and probabilities."""
        labels, maps = self._segment(volume, probabilities)
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
        """The same in bytes."""
        # decode_compressed takes its kind as an attribute, so there is a branch for each.
        plain = tf.case(
            [(compression == "gzip", lambda: tf.io.decode_compressed(data_bytes, "GZIP"))],
            lambda: data_bytes,
        )
        volume = tf.case(
            [
                (dtype == "int16", lambda: tf.cast(tf.io.decode_raw(plain, tf.int16), tf.float32)),
                (dtype == "float16", lambda: tf.cast(tf.io.decode_raw(plain, tf.half), tf.float32)),
            ],
            lambda: tf.io.decode_raw(plain, tf.float32),
        )
        labels, maps = self._segment(tf.reshape(volume, shape), probabilities)
        return {
            "labels_bytes": _bytes_of(labels),
            "probabilities_bytes": _bytes_of(tf.cast(maps, tf.float16)),
            "shape": tf.shape(labels),
        }

    @tf.function
    def metadata(self, request: tf.Tensor) -> dict[str, tf.Tensor]:
        """What it says of itself."""
        return {"json": tf.constant(json.dumps(METADATA))}

    @tf.function
    def patches(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `serving_default` does."""
        return {"probabilities": tf.sigmoid(inputs[..., :3] / 100)}


def _bytes_of(values: tf.Tensor) -> tf.Tensor:
    """Little-endian, C order: what stands at the end of a serialized tensor."""
    flat = tf.reshape(values, [-1])
    message = tf.io.serialize_tensor(flat)
    size = tf.size(flat) * values.dtype.size
    return tf.strings.substr(message, tf.strings.length(message) - size, size)


def write_model(folder: Path, threshold: float = 100.0, seconds: float = 0.0) -> Path:
    """Write `folder`/saved_model.pb aside and rename it, as kerasseg export does."""
    tiny = Tiny(threshold, seconds)
    scalar, text = tf.TensorSpec([], tf.bool), tf.TensorSpec([], tf.string)
    spacing = tf.TensorSpec([3], tf.float32)
    volume = tf.TensorSpec([None, None, None, CHANNELS], tf.float32)
    aside = folder.with_name(f".{folder.name}.incomplete")
    aside.parent.mkdir(parents=True, exist_ok=True)
    tf.saved_model.save(
        tiny,
        str(aside),
        signatures={
            "segment": tiny.segment.get_concrete_function(volume, spacing, scalar),
            "segment_bytes": tiny.segment_bytes.get_concrete_function(
                text, tf.TensorSpec([4], tf.int32), text, text, spacing, scalar
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
