"""`python -m benchmarks sam_encoders`: a slice through SAM's image encoders, time and memory.

`python -m benchmarks.sam_encoders vit_b 1024` measures one of them and prints JSON.
"""

import json
import sys
import time

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import peak_memory, start_tensorflow

ENCODERS = (("tiny_vit", "256"), ("vit_b", "448"), ("vit_b", "1024"))
SLICE = (1, 240, 240, 1)


def run() -> str:
    """Markdown table, of random weights."""
    rows = []
    for encoder, side in ENCODERS:
        found = measure("benchmarks.sam_encoders", encoder, side)
        rows.append(
            f"| `{encoder}` at {side} | {found['parameters']:,} | {found['build']:.1f} s "
            f"| {found['wall']:.1f} s | {found['processor']:.1f} s | {found['masks']:.2f} s "
            f"| {found['embedding'] / 1e6:.2f} MB | {found['peak'] / 2**30:.2f} GiB |"
        )
    return (
        "## A slice of 240 x 240 pixels through SAM\n\n"
        "| encoder | parameters of the network | built in | embedding | its processor time "
        "| masks of the embedding | float16 embedding | peak memory of the process |\n"
        "|---|---|---|---|---|---|---|---|\n"
    ) + "\n".join(rows)


def main(encoder: str, side: str) -> None:
    """Build the network, embed the slice twice, decode it; print the second times as JSON."""
    start_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.model import ModelSettings
    from kerasseg.models.build import build_network
    from kerasseg.models.sam.network import after_encoder

    sam = {"encoder": encoder, "side": int(side), "weights": "none"}
    settings = ModelSettings.model_validate(
        {"dimensions": 2, "network": "sam", "target": "binary", "sam": sam}
    )
    started = time.perf_counter()
    network = build_network(settings, SLICE[-1])
    build = time.perf_counter() - started
    parts = [
        keras.Model(network.input, network.get_layer("bottleneck").output),
        after_encoder(network, settings, SLICE[1:3]),
    ]
    embed, decode = (tf.function(part, autograph=False) for part in parts)
    image = tf.constant(np.random.default_rng(0).random(SLICE, np.float32))
    for _ in range(2):  # the first time holds the tracing
        started, used = time.perf_counter(), time.process_time()
        embedding = embed(image)
        wall, processor = time.perf_counter() - started, time.process_time() - used
        decode(embedding)
        masks = time.perf_counter() - started - wall
    found = {"parameters": network.count_params(), "build": build, "wall": wall}
    found |= {"processor": processor, "masks": masks, "peak": peak_memory()}
    print(json.dumps(found | {"embedding": 2 * int(tf.size(embedding))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
