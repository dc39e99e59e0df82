"""Real LGG patients and real pictures: a ready config scaled down, against a plain U-Net.

Both on the same cores and the same split: every fourth of the sorted patients, every fifth of the
sorted pictures validates, the others train. The plain U-Net is the anchor: 1.9 million parameters,
flips and brightness, Dice + BCE, Adam 1e-3 with cosine, for 32 and 24 epochs. kerasseg's epochs are
chosen to end before the anchor's do on a processor that computes in bfloat16 (AVX512-BF16).
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parents[2] / "shared" / "data"

COMMON = (
    "data.size=[128,128]",
    "pipeline.patch_size=[128,128]",
    "training.batch_size=16",
    "training.early_stopping_patience=null",
    "evaluation.window_batch=16",
)
PLAIN = (
    "model={dimensions: 2, target: binary, features: [32,64,128], bottleneck: 256, norm: batch, "
    "activation: relu}",
    "augment={preset: light}",
    "loss=[{dice: 1.0}, {cross_entropy: 1.0}]",
    "optimizer={name: adam, learning_rate: 1e-3, schedule: cosine, warmup_epochs: 0}",
    "pipeline.slices={keep: all}",
)
OURS = (
    "model={dimensions: 2, target: binary, features: [16,32,64,128], bottleneck: 256, norm: batch}",
    "augment={preset: classic_2d}",
    "loss=[{dice: 1.0}, {cross_entropy: 1.0}]",
    "optimizer={name: adamw, learning_rate: 2e-3, warmup_epochs: 2, ema: 0.99}",
    "training.precision=mixed_bfloat16",
    "evaluation.flips=[width]",
)


class Job(NamedTuple):
    """One data set: its config, its folder, every which case validates, and what differs."""

    config: str
    root: str
    every: int
    plain: tuple[str, ...]
    ours: tuple[str, ...]


JOBS = {
    "LGG, 18 patients": Job(
        "lgg_2d",
        "lgg/kaggle_3m",
        4,
        ("training.epochs=32", "pipeline.patches_per_volume=20"),
        (
            "training.epochs=56",
            "pipeline.patches_per_volume=25",
            "pipeline.validation_patches_per_volume=24",
            "pipeline.slices={keep: all, empty_share: 0.35}",
        ),
    ),
    "Pictures, 200 pairs": Job(
        "pairs_2d",
        "image_pairs",
        5,
        ("training.epochs=24", "pipeline.patches_per_volume=1"),
        ("training.epochs=40", "pipeline.patches_per_volume=1"),
    ),
}


def run() -> str:
    """Markdown tables of Dice and minutes."""
    if not DATA.is_dir():
        return f"## Real slices\n\nNot run: the real scans are not here ({DATA} is missing)."
    return "\n\n".join(_table(title, job) for title, job in JOBS.items())


def _table(title: str, job: Job) -> str:
    folder = Path(tempfile.mkdtemp(prefix="kerasseg-bench-"))
    rows = []
    try:
        split = _split(job, folder)
        for name, overrides in (
            ("plain U-Net", (*PLAIN, *job.plain)),
            ("kerasseg", (*OURS, *job.ours)),
        ):
            print(f"{title}: {name} …", file=sys.stderr, flush=True)
            rows.append(f"| {name} | " + " | ".join(_train(job, folder, split, overrides)) + " |")
    finally:
        shutil.rmtree(folder)
    return (
        f"## {title}: every {job.every}th validates, 128 x 128\n\n"
        "| | parameters | epochs | mean Dice of the validation cases, last epoch | best epoch "
        "| minutes | CPU minutes |\n|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _split(job: Job, folder: Path) -> Path:
    """A CSV that says who validates, by sorted name."""
    if job.config == "lgg_2d":
        names = sorted(path.name for path in (DATA / job.root).iterdir() if path.is_dir())
    else:
        names = sorted(path.stem for path in (DATA / job.root / "images").iterdir())
    path = folder / "split.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "split"])
        for index, name in enumerate(names):
            writer.writerow([name, "validation" if index % job.every == 0 else "train"])
    return path


def _train(job: Job, folder: Path, split: Path, overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Parameters, epochs, Dice of the last and of the best epoch, minutes by the clock and, which
    other work on the machine does not change, of all cores together."""
    settings = [
        f"data.root={DATA / job.root}",
        f"split={{method: file, file: {split}}}",
        f"records.root={folder / 'store'}",
        f"run.root={folder / 'runs'}",
        *COMMON,
        *overrides,
    ]
    command = [sys.executable, "train.py", "--config", f"configs/{job.config}.yaml", *settings]
    before = os.times()
    subprocess.run(command, check=True, stdout=sys.stderr)
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    newest = max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    summary = json.loads((newest / "summary.json").read_text())
    last = subprocess.run(
        [sys.executable, "-m", "benchmarks.real_2d", str(newest)],
        check=True,
        capture_output=True,
        text=True,
    )
    return (
        f"{summary['parameters']:,}",
        str(summary["epochs"]),
        f"{float(last.stdout):.3f}",
        f"{summary['dice']['validation']['tumour']:.3f}",
        f"{summary['minutes']:.1f}",
        f"{cpu / 60:.1f}",
    )


def last_epoch(folder: Path) -> float:
    """Mean Dice over the validation cases of a run by the weights of its last epoch.

    The best epoch is the best by those very cases, which flatters it.
    """
    from kerasseg.evaluation.evaluate import dice_of_cases
    from kerasseg.evaluation.scores import mean_scores
    from kerasseg.inference.predictor import build_predictor
    from kerasseg.run import load_network, read_run

    run = read_run(folder)
    predictor = build_predictor(run.experiment, load_network(folder / "checkpoints" / "last.keras"))
    scores = dice_of_cases(predictor, run.open_store(), run.case_ids("validation"))
    return mean_scores(scores)["tumour"]


if __name__ == "__main__":
    print(last_epoch(Path(sys.argv[1])))
