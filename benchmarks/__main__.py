"""Run every benchmark, print the tables, write them to benchmarks/results.md.

`python -m benchmarks train_step` runs one of them. `lgg`, `pairs` (which take hours) and `app`
have options of their own (`python -m benchmarks lgg --help`).
"""

import platform
import sys
from datetime import date
from pathlib import Path

import kerasseg  # noqa: F401  (its flags must stand before TensorFlow starts)
from benchmarks import (
    albumentations_threads,
    app_page,
    compression,
    conversion,
    data_speed,
    export_speed,
    instance_norm,
    lgg,
    memory,
    optimizers,
    pairs,
    patches,
    real_2d,
    sam_encoders,
    serving_load,
    serving_wire,
    slices,
    sliding_window,
    static_channels,
    step_memory,
    train_step,
    tuning_memory,
    update_step,
    volume_metrics,
)
from kerasseg.tensorflow_setup import usable_cores

BENCHMARKS = {
    "train_step": train_step.run,
    "update_step": update_step.run,
    "conversion": conversion.run,
    "compression": compression.run,
    "patches": patches.run,
    "data_speed": data_speed.run,
    "slices": slices.run,
    "memory": memory.run,
    "volume_metrics": volume_metrics.run,
    "sliding_window": sliding_window.run,
    "export_speed": export_speed.run,
    "serving_wire": serving_wire.run,
}
"""What `make bench` runs."""
PROBES = {
    "static_channels": static_channels.run,
    "step_memory": step_memory.run,
    "instance_norm": instance_norm.run,
    "real_2d": real_2d.run,
    "sam_encoders": sam_encoders.run,
    "optimizers": optimizers.run,
    "tuning_memory": tuning_memory.run,
    "albumentations_threads": albumentations_threads.run,
    "serving_load": serving_load.run,
}
"""Run by name only; their figures stand in notes.md."""
CAMPAIGNS = {"lgg": lgg.main, "pairs": pairs.main, "app": app_page.main}
"""Run by name with options; the tables of the first two stand in lgg.md and pairs.md."""


def main(names: list[str]) -> None:
    """Run `names`, or all; a whole run replaces results.md."""
    if names and names[0] in CAMPAIGNS:
        CAMPAIGNS[names[0]](names[1:])
        return
    known = BENCHMARKS | PROBES
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(
            f"unknown benchmark {', '.join(unknown)}: there are {', '.join([*known, *CAMPAIGNS])}"
        )
    tables = []
    for name in names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            table = known[name]()
        except ModuleNotFoundError as error:
            sys.exit(f"{name} needs {error.name}: make bench installs what it is compared with.")
        print(table + "\n", flush=True)
        tables.append(table)
    if not names:
        head = f"# `make bench` on {date.today()}\n\n{machine()}\n\n"
        path = Path(__file__).with_name("results.md")
        path.write_text(head + "\n\n".join(tables) + "\n", encoding="utf-8")


def machine() -> str:
    """The machine's kind in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    width = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    cores = usable_cores()
    kind = models[0] if models else platform.machine()
    return f"{cores} cores of {kind} ({width}), Python {platform.python_version()}, no GPU used."


if __name__ == "__main__":
    main(sys.argv[1:])
