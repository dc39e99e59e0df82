"""`python -m benchmarks sam_encoders`: a slice through SAM's image encoders, time and memory.

`python -m benchmarks.sam_encoders vit_b 1024` measures one of them and prints JSON, and `python -m
benchmarks.sam_encoders steps` a training step of configs/sam_lgg_2d.yaml with and without stored
embeddings.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import peak_memory, start_tensorflow

ENCODERS = (("tiny_vit", "256"), ("vit_b", "448"), ("vit_b", "1024"))
SLICE = (1, 240, 240, 1)
STEPS = 3
"""Measured training steps, after one that is not."""


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
    steps = measure("benchmarks.sam_encoders", "steps")
    encoded, embedded = steps["encoded"], steps["embedded"]
    return (
        f"A training step of {steps['batch']} slices: {encoded:.2f} s of processor time with the "
        f"image encoder in it, {embedded:.2f} s from stored embeddings, {encoded / embedded:.1f} "
        "times less.\n\n"
        "## A slice of 240 x 240 pixels through SAM\n\n"
        "| encoder | parameters of the network | built in | embedding | its processor time "
        "| masks of the embedding | float16 embedding | peak memory of the process |\n"
        "|---|---|---|---|---|---|---|---|\n"
    ) + "\n".join(rows)


def time_steps() -> None:
    """Print the processor time of a training step with the image encoder in it, and of one from
    embeddings, in turns, as JSON; both train on the same slices."""
    start_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.load import load_experiment
    from kerasseg.run_experiment import build_network
    from kerasseg.training.fit import compile_for_training

    settings = ["model.sam.weights=none", "data.modalities=[flair]"]
    experiment = load_experiment("configs/sam_lgg_2d.yaml", settings)
    batch, size = experiment.training.batch_size, experiment.pipeline.patch_size
    rng = np.random.default_rng(0)
    slices = rng.random((batch, *size, 1), np.float32)
    masks = (rng.random((batch, *size, 1)) > 0.9).astype(np.uint8)

    def step_of(*, embedded: bool) -> Callable[[], object]:
        network = build_network(experiment)
        model = compile_for_training(experiment, network, 100, embedded=embedded)
        seen: np.ndarray = slices
        if embedded:
            encoder = keras.Model(network.input, network.get_layer("bottleneck").output)
            seen = np.asarray(encoder(slices)).astype(np.float16)
        batches = iter(tf.data.Dataset.from_tensors((seen, masks)).repeat())
        model.make_train_function()
        return lambda: model.train_function(batches)

    steps = {"encoded": step_of(embedded=False), "embedded": step_of(embedded=True)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(STEPS + 1):
        for name, step in steps.items():
            used = time.process_time()
            step()
            if number:
                times[name].append(time.process_time() - used)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps(medians | {"batch": batch}))


def main(encoder: str, side: str = "") -> None:
    """Build the network, embed the slice twice, decode it; print the second times as JSON."""
    if encoder == "steps":
        time_steps()
        return
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
