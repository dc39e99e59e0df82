"""The network as a SavedModel of one signature, from which converters start."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

INPUT, OUTPUT = "patches", "probabilities"


@contextmanager
def served_graph(network: keras.Model) -> Iterator[Path]:
    """Yield the folder of a SavedModel: `patches` of any batch, and of any size if the network
    takes it, -> `probabilities`. It is removed afterwards."""
    signature = tf.TensorSpec(network.inputs[0].shape, tf.float32, name=INPUT)
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve", lambda patches: {OUTPUT: network(patches, training=False)}, [signature]
    )
    with tempfile.TemporaryDirectory(prefix="kerasseg-graph-") as folder:
        archive.write_out(folder, verbose=False)
        yield Path(folder)
