"""The own update (`training/step.py`) against the step of plain Keras `fit`, on one device.

Same network, loss, metrics and data, float32, no accumulation; the plain one with Keras's own AdamW
and its `global_clipnorm`. In one process the two take turns step by step, so that whatever else the
machine does hits both; what counts is the median of the ratios of neighbouring steps.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

ROUNDS, WARMUP, PAIRS = 3, 3, 20
ALLOWED = 1.02
LARGE = ("model.features=[32,64,128,256]", "model.bottleneck=512", "training.batch_size=1")
JOBS = {
    "1.4 M parameters, 2 of 32x48x48": (),
    "22.6 M parameters, 1 of 32x64x64": ("pipeline.patch_size=[32,64,64]", *LARGE),
}
"""Changes to configs/phantom_3d.yaml."""
CLIPS = ("null", "1.0")


def run() -> str:
    """Markdown table of medians over `ROUNDS` processes of `PAIRS` pairs of steps."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(ROUNDS):
        for job in JOBS:
            for clip in CLIPS:
                measured = measure("benchmarks.update_step", job, clip)
                found.setdefault((job, clip), []).append(measured)
    rows, medians = [], []
    for (job, clip), rounds in found.items():
        ratios = sorted(ratio for one in rounds for ratio in one["ratios"])
        own, plain = (statistics.median(one[name] for one in rounds) for name in ("own", "plain"))
        low, median, high = statistics.quantiles(ratios, n=4)
        medians.append(median)
        rows.append(
            f"| {job} | {'off' if clip == 'null' else clip} | {own:.3f} s | {plain:.3f} s | "
            f"{median:.3f} | {low:.3f} to {high:.3f} |"
        )
    verdict = "holds" if max(medians) <= ALLOWED else "FAILS"
    return (
        f"## The own update against plain `fit` (median of {ROUNDS} x {PAIRS} pairs)\n\n"
        "| | clip | own | plain | ratio | middle half of the ratios |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nRatio at most {ALLOWED:.2f} is asked for: {verdict}."
    )


def steps(overrides: tuple[str, ...], clip: str) -> tuple[Callable[[], float], ...]:
    """The own step and the plain one, each returning its loss so far, from the same weights."""
    start_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.load import DEMO_CONFIG, load_experiment
    from kerasseg.losses.loss import build_loss
    from kerasseg.run_experiment import build_network
    from kerasseg.training.fit import compile_for_training
    from kerasseg.training.step import TrainingModel

    class Plain(TrainingModel):
        make_train_function = keras.Model.make_train_function

    rate = "optimizer={schedule: constant, warmup_epochs: 0, learning_rate: 2e-4}"
    experiment = load_experiment(DEMO_CONFIG, [*overrides, rate, f"optimizer.clip_norm={clip}"])
    settings = experiment.optimizer
    own = compile_for_training(experiment, build_network(experiment), updates_per_epoch=100)
    target = experiment.model.target
    plain = Plain(build_network(experiment), target, build_loss(experiment.loss, target))
    optimizer = keras.optimizers.AdamW(
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        global_clipnorm=settings.clip_norm,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    plain.compile(optimizer, jit_compile=own.jit_compile, auto_scale_loss=False)
    plain.set_weights(own.get_weights())

    rng = np.random.default_rng(0)
    shape = (experiment.training.batch_size, *experiment.pipeline.patch_size)
    image = rng.normal(size=(*shape, 4)).astype(np.float32)
    masks = (rng.random((*shape, 3)) > 0.5).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensors((image, masks)).repeat()

    def step_of(model: TrainingModel) -> Callable[[], float]:
        model.make_train_function()
        batches = iter(dataset)
        return lambda: float(model.train_function(batches)["loss"])

    return step_of(own), step_of(plain)


def main(job: str, clip: str) -> None:
    """Print the median seconds of both and the ratios of neighbouring steps as JSON."""
    own, plain = steps(JOBS[job], clip)
    for _ in range(WARMUP):
        losses = own(), plain()
        if abs(losses[0] - losses[1]) > 1e-3:
            sys.exit(f"the two do not learn the same: {losses}")
    times: dict[str, list[float]] = {"own": [], "plain": []}
    order = [("own", own), ("plain", plain)]
    for _ in range(PAIRS):
        for name, step in order:
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
        order.reverse()  # neither is always behind the other
    ratios = [a / b for a, b in zip(times["own"], times["plain"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps(medians | {"ratios": ratios}))


if __name__ == "__main__":
    main(*sys.argv[1:])
