"""Which precision to train in, and why."""

import tensorflow as tf

from kerasseg.config import Experiment
from kerasseg.errors import UserError

_TENSOR_CORES = (7, 0)
"""Compute capability from which float16 convolutions are faster (Volta)."""


def choose_precision(setting: str) -> tuple[str, str]:
    """`training.precision` -> Keras policy name and the reason in words.

    Raises `UserError` for mixed_float16 without a GPU: TensorFlow has no 3-D pooling in float16
    on a CPU.
    """
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if setting == "mixed_float16" and not gpus:
        raise UserError(
            "training.precision=mixed_float16 needs a GPU, and TensorFlow sees none (kerasseg "
            "doctor says why): use training.precision=auto or float32."
        )
    if setting != "auto":
        return setting, "as configured"
    if not gpus:
        return "float32", "no GPU"
    capability = min(d.get("compute_capability", (0, 0)) for d in details)
    name = details[0].get("device_name", "GPU")
    if capability >= _TENSOR_CORES:
        return "mixed_float16", f"{name} has tensor cores"
    return "float32", f"{name} has no tensor cores"


def check_precision(experiment: Experiment, policy: str) -> None:
    """Raise `UserError` where gradients would be wrong: in bfloat16 on a CPU, in thin patches.

    oneDNN in TensorFlow 2.21 adds memory that was never written to the gradient of a 3-D kernel of
    stride 1 whose feature maps are thinner than the kernel, but not of a single slice. The step
    then ends in NaN or, worse, does not.
    """
    model, patch = experiment.model, list(experiment.pipeline.patch_size)
    if model.dimensions == 2 or policy != "mixed_bfloat16" or tf.config.get_visible_devices("GPU"):
        return
    thinnest = patch[0] // model.stride
    if thinnest < model.kernel:
        raise UserError(
            "training.precision=mixed_bfloat16 on a CPU gives wrong gradients in feature maps "
            f"thinner than model.kernel={model.kernel}, and pipeline.patch_size {patch} is "
            f"{thinnest} deep in the bottleneck: use a depth of at least "
            f"{model.kernel * model.stride}, or training.precision=float32."
        )
