"""What a run folder says of the objective."""

from pathlib import Path
from typing import Any


def trained_so_far(run: Path, objective: str, direction: str) -> dict[str, Any]:
    """The best finite score (None without one), the epochs, and the curve, a number per epoch."""
    path = run / "history.csv"
    if not path.exists():
        return {"score": None, "epochs": 0, "curve": []}
    from kerasseg.training.callbacks.history import read_history  # loads TensorFlow

    rows = read_history(path)
    curve = [float(row[objective]) for row in rows if row.get(objective)]
    best = max if direction == "max" else min
    score = best((score for score in curve if score - score == 0), default=None)
    return {"score": score, "epochs": len(rows), "curve": curve}
