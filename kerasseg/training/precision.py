"""Which precision to train in, and why."""

import tensorflow as tf

_TENSOR_CORES = (7, 0)
"""Compute capability from which float16 convolutions are faster (Volta)."""


def choose_precision(setting: str) -> tuple[str, str]:
    """`training.precision` -> Keras policy name and the reason in words."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if setting == "mixed_float16" and not gpus:
        return setting, "as configured, though without a GPU it only costs time"
    if setting != "auto":
        return setting, "as configured"
    if not gpus:
        return "float32", "no GPU"
    capability = min(d.get("compute_capability", (0, 0)) for d in details)
    name = details[0].get("device_name", "GPU")
    if capability >= _TENSOR_CORES:
        return "mixed_float16", f"{name} has tensor cores"
    return "float32", f"{name} has no tensor cores"
