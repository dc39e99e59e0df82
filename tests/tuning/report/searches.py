"""Folders of searches that never ran."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SPACE: dict[str, Any] = {
    "optimizer.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "optimizer.name": {"choice": ["adamw", "sgd"]},
    "optimizer.momentum": {"float": [0.8, 0.99], "when": {"optimizer.name": "sgd"}},
    "model.features": {"choice": [[8, 16, 32], [16, 32, 64], [24, 48, 96, 192, 384, 768]]},
    "model.residual": {"boolean": True},
    "training.batch_size": {"int": [1, 4], "step": 1},
}
START = 1_795_000_000.0


def a_trial(number: int, score: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    """A completed trial of three minutes; the baseline if `number` is 0."""
    values = {
        "optimizer.learning_rate": 10 ** (-5 + number % 7 / 2.5),
        "optimizer.name": ("adamw", "sgd")[number % 2],
        "model.features": SPACE["model.features"]["choice"][number % 3],
        "model.residual": number % 4 < 2,
        "training.batch_size": 1 + number % 4,
    }
    if number % 2:
        values["optimizer.momentum"] = 0.8 + number % 5 / 30
    good = score if score is not None and math.isfinite(score) else 0.1
    execution = {
        "run": f"runs/trial_{number}",
        "score": score,
        "epochs": 4,
        "minutes": 3.0,
        "curve": [good / 4, good / 3, good / 2, good],
        "peak_memory_gib": 7.5,
    }
    return {
        "trial_id": "baseline" if number == 0 else f"{number:04d}",
        "number": number,
        "status": "completed",
        "reason": None,
        "score": score,
        "values": values,
        "executions": [execution],
        "started": START + 200 * number,
        "ended": START + 200 * number + 180,
        "worker": f"node-{number % 2}",
        "bracket": None,
        "round": None,
        "epochs_to": None,
        "continued_from": None,
        **changes,
    }


def a_failed_trial(number: int, reason: str = "out of memory") -> dict[str, Any]:
    """Its only execution has no epoch."""
    return a_trial(number, None, status="failed", reason=reason, executions=[])


def write_search(
    folder: Path, trials: list[dict[str, Any]], space: dict[str, Any] | None = None, **search: Any
) -> Path:
    """A search's folder as `tune.py` leaves it, with the folders of its runs."""
    section = {
        "name": "a_search",
        "tuner": "random",
        "objective": "val_dice",
        "direction": "max",
        "space": SPACE if space is None else space,
        **search,
    }
    (folder / "trials").mkdir(parents=True)
    (folder / "search.yaml").write_text(
        yaml.safe_dump({"search": section, "base": {}}, sort_keys=False)
    )
    for trial in trials:
        (folder / "trials" / f"{trial['trial_id']}.json").write_text(json.dumps(trial))
        for execution in trial["executions"]:
            (folder / execution["run"]).mkdir(parents=True, exist_ok=True)
    return folder


def planted_trials(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random values; the score follows the learning rate, with a little noise."""
    generator = np.random.default_rng(seed)
    trials = []
    for number in range(1, count + 1):
        sgd = bool(generator.random() < 0.5)
        exponent = float(generator.uniform(-5, -2))
        values = {
            "optimizer.learning_rate": 10**exponent,
            "optimizer.name": "sgd" if sgd else "adamw",
            "model.features": SPACE["model.features"]["choice"][generator.integers(3)],
            "model.residual": bool(generator.random() < 0.5),
            "training.batch_size": int(generator.integers(1, 5)),
        }
        if sgd:
            values["optimizer.momentum"] = float(generator.uniform(0.8, 0.99))
        score = 0.8 - 0.1 * abs(exponent + 3.2) + float(generator.normal(0, 0.01))
        trials.append(a_trial(number, score, values=values))
    return trials
