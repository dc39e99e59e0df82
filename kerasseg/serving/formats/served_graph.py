"""The network as a SavedModel of one signature, from which converters start."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

INPUT, OUTPUT = "patches", "probabilities"


@contextmanager
def served_graph(network: keras.Model, size: Sequence[int] | None = None) -> Iterator[Path]:
    """Yield the folder of a SavedModel: `patches` of any batch -> `probabilities`.

    They have the `size` ([d,] h, w), or any that the network takes. It is removed afterwards.
    """
    shape = network.inputs[0].shape
    if size is not None:
        shape = (None, *size, shape[-1])
    signature = tf.TensorSpec(shape, tf.float32, name=INPUT)
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve", lambda patches: {OUTPUT: network(patches, training=False)}, [signature]
    )
    with tempfile.TemporaryDirectory(prefix="kerasseg-graph-") as folder:
        archive.write_out(folder, verbose=False)
        yield Path(folder)
