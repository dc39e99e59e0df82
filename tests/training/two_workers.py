"""Run in a process of its own for each worker: what the machines tell each other."""

import json
import os
import sys
import time
from pathlib import Path

import kerasseg  # noqa: F401  (sets the flags before anything imports TensorFlow)

# isort: split
from kerasseg.config.training import TrainingSettings
from kerasseg.errors import UserError
from kerasseg.tensorflow_setup import start_tensorflow
from kerasseg.training.devices import Devices, choose_devices

LONG = "é" * 10_000


def main() -> None:
    """Print all of it as JSON; then worker 1 dies while the chief waits for it."""
    devices = start_tensorflow(lambda: choose_devices(TrainingSettings(batch_size=4)))
    told = {
        "worker": devices.worker,
        "replicas": devices.replicas,
        "description": devices.description,
    }
    told["orders"] = [
        devices.any_worker(False),
        devices.any_worker(devices.worker == 1),
        devices.any_worker(devices.chief),
    ]
    told["scores"] = devices.broadcast(lambda: {"dice": 1 / 3, "no": float("nan")}, ["dice", "no"])
    made = Path(sys.argv[1])
    if devices.chief:
        time.sleep(1)  # so that it would come second if nobody waited
    told["found"] = devices.chief_first(lambda: [made.exists(), made.touch()][0])
    devices.check_same("config", LONG)
    told["short"] = refusal(devices, f"batch: {2 + 2 * devices.worker}")
    told["long"] = refusal(devices, f"batch: {2 + 2 * devices.worker}\n{LONG}")
    print(json.dumps(told), flush=True)
    if not devices.chief:
        os._exit(0)
    try:
        with devices.explain_lost_worker():
            devices.barrier()
    except UserError as error:
        print(json.dumps(str(error)))
    devices.final_barrier()  # at once, as the other is gone


def refusal(devices: Devices, value: str) -> str:
    """What is said about a value that differs."""
    try:
        devices.check_same("config", value, "Compare it by hand.")
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
