"""Whether training memory grows with the number of cases: 20 against 400 phantoms."""

import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

FEW, MANY, STEPS = 20, 400, 200
ALLOWED = 1.10


def run() -> str:
    """Markdown table of the peak memory of two otherwise equal fits."""
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    try:
        peaks = {}
        for cases in (FEW, MANY):
            measure("benchmarks.memory", "convert", str(cases), str(folder))
            peaks[cases] = measure("benchmarks.memory", "train", str(cases), str(folder))["gib"]
    finally:
        shutil.rmtree(folder)
    rows = "\n".join(f"| {cases} | {peak:.3f} GiB |" for cases, peak in peaks.items())
    ratio = peaks[MANY] / peaks[FEW]
    verdict = "holds" if ratio <= ALLOWED else "FAILS"
    return (
        f"## Peak memory of {STEPS} training steps\n\n"
        f"| cases | peak memory |\n|---|---|\n{rows}\n\n"
        f"Ratio {ratio:.3f}; at most {ALLOWED:.2f} is promised: {verdict}."
    )


def main(what: str, cases: str, folder: str) -> None:
    """Convert the phantoms, or train on them and print the peak memory as JSON."""
    from kerasseg.config.load import load_experiment

    experiment = load_experiment(
        None,
        [
            f"data.phantom={{cases: {cases}, shape: [32,40,36]}}",
            f"records.root={folder}/{cases}",
            "pipeline.patch_size=[24,32,32]",
            "model.features=[8,16]",
            "model.bottleneck=32",
            "training.epochs=1",
            f"training.steps_per_epoch={STEPS}",
        ],
    )
    from kerasseg.records.splits import open_split
    from kerasseg.records.store import open_store

    store = open_store(experiment)
    if what == "convert":
        print("{}")
        return
    start_tensorflow()
    from kerasseg.run_experiment import build_network
    from kerasseg.training.fit import fit

    run = Path(folder) / f"run-{cases}"
    (run / "checkpoints").mkdir(parents=True)
    fit(experiment, build_network(experiment), store, open_split(store, experiment.split), run)
    print(json.dumps({"gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main(*sys.argv[1:])
