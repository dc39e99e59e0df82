"""`python -m benchmarks step_memory`: what `training/memory.py` estimates against what it takes."""

import json
import resource
import sys

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

STEPS = (
    ("[32,64,64]", 1, "[32,64,128,256]", 512),
    ("[64,96,96]", 1, "[32,64,128,256]", 512),
    ("[64,96,96]", 2, "[32,64,128,256]", 512),
    ("[64,128,128]", 1, "[32,64,128,256]", 512),
    ("[96,96,96]", 1, "[8,16,32,64]", 128),
    ("[256,256]", 16, "[32,64,128,256]", 512),
    ("[192,192]", 4, "[32,64,128,256]", 512),
    ("[256,256]", 32, "[16,32,64]", 128),
    ("[512,512]", 4, "[32,64,128,256]", 512),
)
"""3-D patches, then slices."""
RESIDUAL = (
    "model.encoder_blocks=[1,3,4,4]",
    "model.decoder_blocks=1",
    "model.residual=encoder",
    "model.downsampling=strided",
    "model.deep_supervision=2",
)
GATED = ("model.attention_gates=true", "model.upsampling=interpolate")
HEAVY = ("[16,32,32]", 1, "[64,128,256,512]", 1024)
"""90.3 million parameters on a patch so small that they are most of the memory."""
OTHER_NETWORKS = (
    ("[64,96,80]", 2, "[16,32,64]", 96, *RESIDUAL),
    ("[48,64,64]", 2, "[16,32,64]", 128, *GATED),
    (*HEAVY, "training.gradient_accumulation=1"),
    (*HEAVY, "training.gradient_accumulation=2"),
    (*HEAVY, "optimizer.name=sgd"),
    (*HEAVY, "optimizer.ema=0.999"),
)


def run() -> str:
    """Markdown table: peak above what the process took before it built the network, and the
    estimate."""
    rows = []
    for patch, batch, features, bottleneck, *settings in (*STEPS, *OTHER_NETWORKS):
        arguments = (patch, str(batch), features, str(bottleneck), *settings)
        found = measure("benchmarks.step_memory", *arguments)
        words = " ".join(
            setting.removeprefix("model.").removeprefix("training.") for setting in settings
        )
        row = f"| {patch} | {batch} | {features} + {bottleneck} {words} | {found['taken']:.2f} GB "
        rows.append(row + f"| {found['estimated']:.2f} GB |")
    return (
        "## Memory of a float32 training step\n\n"
        "| patch | batch | network | taken | estimated |\n|---|---|---|---|---|\n"
    ) + "\n".join(rows)


def main(patch: str, batch: str, features: str, bottleneck: str, *others: str) -> None:
    """Two steps; print peak and estimate in GB as JSON."""
    start_tensorflow()
    import numpy as np
    import tensorflow as tf

    from kerasseg.config.load import load_experiment
    from kerasseg.run_experiment import build_network
    from kerasseg.training.checks import step_bytes
    from kerasseg.training.fit import compile_for_training

    settings = [f"pipeline.patch_size={patch}", f"training.batch_size={batch}"]
    settings += [f"model.features={features}", f"model.bottleneck={bottleneck}", *others]
    settings.append(f"model.dimensions={patch.count(',') + 1}")
    experiment = load_experiment(None, settings)
    size = experiment.pipeline.patch_size
    tf.zeros([1]) + 1.0  # TensorFlow is up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = compile_for_training(experiment, build_network(experiment), updates_per_epoch=100)
    image = np.zeros((int(batch), *size, 4), np.float16)
    target = np.zeros((int(batch), *size, 3), np.uint8)
    data = iter(tf.data.Dataset.from_tensors((image, target)).repeat())
    model.make_train_function()
    for _ in range(2):
        model.train_function(data)
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    estimated = step_bytes(experiment, size, 4)
    print(json.dumps({"taken": taken * 1024 / 1e9, "estimated": estimated / 1e9}))


if __name__ == "__main__":
    main(*sys.argv[1:])
