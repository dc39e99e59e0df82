"""One training step of the 22.6 M-parameter 3-D U-Net against PyTorch.

Patch 32 x 64 x 64, batch 1, float32, both on all cores; forward, Dice + focal loss, backward,
AdamW. The two take turns in fresh processes, so that a noisy neighbour hits both.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.subprocess_json import measure
from benchmarks.torch_unet import torch_unet
from kerasseg.tensorflow_setup import start_tensorflow

ROUNDS, WARMUP, STEPS = 3, 3, 10
PATCH, CHANNELS, CLASSES = (32, 64, 64), 4, 3
CLASS_WEIGHTS = (1.5, 1.0, 2.0)


def run() -> str:
    """Markdown table of medians over `ROUNDS` x `STEPS` steps."""
    results: dict[str, list[dict[str, float]]] = {"kerasseg": [], "pytorch": []}
    for _ in range(ROUNDS):
        for name, measured in results.items():
            measured.append(measure("benchmarks.train_step", name))
    seconds = {n: statistics.median(r["seconds"] for r in rs) for n, rs in results.items()}
    memory = {n: max(r["peak_gib"] for r in rs) for n, rs in results.items()}
    ratios = [
        a["seconds"] / b["seconds"]
        for a, b in zip(results["kerasseg"], results["pytorch"], strict=True)
    ]
    rows = "\n".join(f"| {n} | {seconds[n]:.2f} s | {memory[n]:.2f} GiB |" for n in results)
    return (
        f"## Training step, patch 32x64x64, batch 1, float32 (median of {ROUNDS} x {STEPS})\n\n"
        f"| | step | peak memory of the process |\n|---|---|---|\n{rows}\n\n"
        f"Time ratio kerasseg / PyTorch: {seconds['kerasseg'] / seconds['pytorch']:.2f} "
        f"(single rounds {min(ratios):.2f} to {max(ratios):.2f}); memory ratio "
        f"{memory['kerasseg'] / memory['pytorch']:.2f}."
    )


def kerasseg_step() -> Callable[[], object]:
    """The step of `kerasseg train` at the default settings."""
    start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.load import load_experiment
    from kerasseg.run_experiment import build_network
    from kerasseg.training.fit import compile_for_training

    loss = f"loss=[{{dice: 0.5, weights: {list(CLASS_WEIGHTS)}}}, {{focal: 0.5}}]"
    experiment = load_experiment(None, [loss, "training.gradient_accumulation=1"])
    model = compile_for_training(experiment, build_network(experiment), updates_per_epoch=100)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *PATCH, CHANNELS)).astype(np.float32)
    target = (rng.random((1, *PATCH, CLASSES)) > 0.5).astype(np.uint8)
    data = iter(tf.data.Dataset.from_tensors((image, target)).repeat())
    model.make_train_function()
    return lambda: model.train_function(data)


def pytorch_step() -> Callable[[], object]:
    """The same network, loss and optimiser, written as a PyTorch user would."""
    import torch
    from torch import nn

    model = torch_unet((32, 64, 128, 256), 512, CHANNELS, CLASSES)
    assert sum(p.numel() for p in model.parameters()) == 22_583_875
    optimizer = torch.optim.AdamW(model.parameters(), 2e-4)
    image = torch.randn(1, CHANNELS, *PATCH)
    target = (torch.rand(1, CLASSES, *PATCH) > 0.5).float()
    weights = torch.tensor(CLASS_WEIGHTS)

    def step() -> float:
        optimizer.zero_grad()
        p = model(image)
        overlap = (p * target).sum((0, 2, 3, 4))
        dice = 1 - (2 * overlap + 1) / (p.sum((0, 2, 3, 4)) + target.sum((0, 2, 3, 4)) + 1)
        entropy = nn.functional.binary_cross_entropy(p, target, reduction="none")
        focal = ((1 - torch.where(target > 0.5, p, 1 - p)) ** 2 * entropy).mean()
        loss = 0.5 * (weights * dice).sum() / weights.sum() + 0.5 * focal
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main(name: str) -> None:
    """Print the median step time and the peak memory of this process as JSON."""
    step = {"kerasseg": kerasseg_step, "pytorch": pytorch_step}[name]()
    times = []
    for _ in range(WARMUP + STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": statistics.median(times[WARMUP:]), "peak_gib": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
