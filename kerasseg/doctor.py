"""`kerasseg doctor`: print what this machine offers and what is wrong with it."""

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import keras
import psutil
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from kerasseg import __version__
from kerasseg.tensorflow_setup import FLAGS
from kerasseg.training.checks import choose_precision
from kerasseg.training.devices import device_name

_ENOUGH_MEMORY_GB = 8
_ENOUGH_DISK_GB = 50
"""A store of BraTS 2021's 1251 cases takes about 36 GB."""


def examine() -> None:
    """Print a table of the machine and a list of problems."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    table = Table("", "", show_header=False, box=None)
    gpus = tf.config.list_physical_devices("GPU")
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    table.add_row("Python", platform.python_version())
    table.add_row("kerasseg", __version__)
    for package in ("tensorflow", "keras", "numpy"):
        table.add_row(package, metadata.version(package))
    table.add_row("Keras backend", keras.backend.backend())
    table.add_row("Devices", device_name())
    policy, reason = choose_precision("auto")
    table.add_row("Precision", f"{policy} ({reason})")
    onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"]
    table.add_row("oneDNN", "on" if onednn == "1" else f"off (TF_ENABLE_ONEDNN_OPTS={onednn})")
    table.add_row("Memory", f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")
    table.add_row("Disk here", f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free")
    console.print(table)

    warnings = []
    if onednn != "1" and not gpus:
        warnings.append(
            f"oneDNN is off: unset TF_ENABLE_ONEDNN_OPTS ({FLAGS['TF_ENABLE_ONEDNN_OPTS'][1]})."
        )
    if not gpus and shutil.which("nvidia-smi"):
        warnings.append(
            "nvidia-smi is here but TensorFlow sees no GPU: pip install 'kerasseg[gpu]', and check "
            "that `nvidia-smi` itself works."
        )
    if memory.available < _ENOUGH_MEMORY_GB * 1e9:
        warnings.append(
            f"less than {_ENOUGH_MEMORY_GB} GB of memory are free: use small patches "
            "(pipeline.patch_size) and records.workers=1."
        )
    if disk.free < _ENOUGH_DISK_GB * 1e9:
        warnings.append(
            f"less than {_ENOUGH_DISK_GB} GB of disk are free here: a store of a whole BraTS "
            "release may not fit; name another disk with records.root."
        )
    for text in warnings:
        console.print(f"wrong: {text}", style="yellow")
    if not warnings:
        console.print("Nothing is wrong.")
