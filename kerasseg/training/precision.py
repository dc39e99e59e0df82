"""Which precision to train in, and why."""

import tensorflow as tf

from kerasseg.errors import UserError

_TENSOR_CORES = (7, 0)
"""Compute capability from which float16 convolutions are faster (Volta)."""


def choose_precision(setting: str) -> tuple[str, str]:
    """`training.precision` -> Keras policy name and the reason in words.

    Raises `UserError` for mixed_float16 without a GPU: TensorFlow has no 3-D pooling in float16
    on a CPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
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
