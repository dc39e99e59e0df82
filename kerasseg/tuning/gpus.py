"""The GPUs of this machine, without starting TensorFlow on them."""

import os
import subprocess

from kerasseg.errors import UserError


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, one for each GPU that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",") if name.strip()]
        # CUDA itself stops at the first that is no device.
        return names[: names.index("-1")] if "-1" in names else names
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]


def places(parallel: int | str, gpu: int | None) -> list[str | None]:
    """A place for each trial at a time: the GPU that it sees; None for all that this process sees.

    parallel: `search.parallel`. gpu: of --gpu, the only one to be used.
    Raises `UserError` for a GPU that is not there.
    """
    gpus = visible_gpus()
    if gpu is not None:
        if gpu not in range(len(gpus)):
            here = f"{len(gpus)} GPU(s), numbered from 0" if gpus else "no GPU"
            raise UserError(f"--gpu {gpu}: there is {here} here: leave --gpu out, or name one.")
        gpus = [gpus[gpu]]
    count = max(len(gpus), 1) if parallel == "auto" else int(parallel)
    if count == 1:
        return [gpus[0] if gpu is not None else None]
    return [gpus[index % len(gpus)] if gpus else None for index in range(count)]
