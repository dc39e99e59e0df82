"""A small SavedModel with the signatures of `kerasseg export`, from a plain tf.Module.

`python -m tests.serving.saved_model FOLDER [THRESHOLD [SECONDS]]` writes one.

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
    """threshold: above it is tumour. seconds: how long a request takes."""

    def __init__(self, threshold: float, seconds: float = 0.0) -> None:
        super().__init__()
        self.threshold = tf.Variable(threshold, trainable=False)
        self.steps = int(seconds * 100)

    def _segment(self, volume, probabilities):
        # A loop that only takes time: a graph cannot sleep.
        waste = tf.while_loop(
            lambda i, x: i < self.steps,
            lambda i, x: (i + 1, tf.linalg.normalize(tf.matmul(x, x))[0]),
            (0, tf.eye(400) * 0.5),
        )[1][0, 0]
        volume = volume + 0.0 * tf.math.multiply_no_nan(waste, 0.0)
        tumour, enhancing = volume[..., 0] > self.threshold, volume[..., 1] > self.threshold
        labels = tf.where(tumour, tf.where(enhancing, 4, 1), 0)
        maps = tf.sigmoid(volume[..., :3] / 100)
        none = tf.zeros((0, 0, 0, 3))
        return tf.cast(labels, tf.uint8), tf.cond(probabilities, lambda: maps, lambda: none)

    @tf.function
    def segment(self, volume, spacing, probabilities):
        labels, maps = self._segment(volume, probabilities)
        return {"labels": labels, "probabilities": maps}

    @tf.function
    def segment_bytes(self, data_bytes, shape, dtype, compression, spacing, probabilities):
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
    def metadata(self, request):
        return {"json": tf.constant(json.dumps(METADATA))}

    @tf.function
    def patches(self, inputs):
        return {"probabilities": tf.sigmoid(inputs[..., :3] / 100)}


def _bytes_of(values):
    flat = tf.reshape(values, [-1])
    if values.dtype == tf.uint8:
        table = tf.constant([bytes([i]) for i in range(256)])
        return tf.strings.reduce_join(tf.gather(table, tf.cast(flat, tf.int32)))
    pairs = tf.cast(tf.reshape(tf.bitcast(flat, tf.uint8), [-1]), tf.int32)
    table = tf.constant([bytes([i]) for i in range(256)])
    return tf.strings.reduce_join(tf.gather(table, pairs))


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
