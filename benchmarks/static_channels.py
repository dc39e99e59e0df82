"""`python -m benchmarks static_channels`: a step on batches of known and of unknown channels."""

import json
import statistics
import sys
import time

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

SHAPE, STEPS = (2, 32, 48, 48), 20


def run() -> str:
    """Markdown line: the demo's network at its patch size."""
    known, unknown = (
        measure("benchmarks.static_channels", word)["seconds"] for word in ("known", "unknown")
    )
    return (
        f"## Step of features [8,16,32] + 64 on {SHAPE} batches (median of {STEPS})\n\n"
        f"Channels known to the graph {known * 1e3:.0f} ms, unknown {unknown * 1e3:.0f} ms: "
        f"{unknown / known:.1f} times as long."
    )


def main(word: str) -> None:
    """Print the median step as JSON."""
    start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.load import load_experiment
    from kerasseg.run_experiment import build_network
    from kerasseg.training.fit import compile_for_training

    settings = ["model.features=[8,16,32]", "model.bottleneck=64"]
    experiment = load_experiment(None, [*settings, "training.gradient_accumulation=1"])
    model = compile_for_training(experiment, build_network(experiment), updates_per_epoch=100)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(*SHAPE, 4)).astype(np.float16)
    target = (rng.random((*SHAPE, 3)) > 0.5).astype(np.uint8)
    spec = tf.TensorSpec((*SHAPE, 4 if word == "known" else None), tf.float16)
    batches = tf.data.Dataset.from_generator(
        lambda: iter(lambda: (image, target), None),
        output_signature=(spec, tf.TensorSpec((*SHAPE, 3), tf.uint8)),
    )
    data = iter(batches)
    model.make_train_function()
    times = []
    for _ in range(STEPS + 3):
        started = time.perf_counter()
        model.train_function(data)
        times.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(times[3:])}))


if __name__ == "__main__":
    main(sys.argv[1])
