"""What this process computes on."""

import platform
from pathlib import Path

import tensorflow as tf

from kerasseg.runtime import usable_cores


def device_name() -> str:
    """The GPUs, or the processor with its number of cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        names = [
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus
        ]
        return ", ".join(names)
    return f"CPU ({_processor()}, {usable_cores()} cores)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
