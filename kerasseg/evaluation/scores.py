"""Dice of whole cases, and the table of them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.metrics.dice import dice
from kerasseg.write_aside import write_aside

SCORES = (*anatomy.SUBREGIONS, "mean", "WT", "TC")
"""Columns: the three sub-regions, their mean, whole tumour and tumour core (unions of them)."""


@dataclass(frozen=True)
class CaseScore:
    """Dice of one case. `dice` maps each of `SCORES` to 0..1."""

    case_id: str
    split: str
    dice: dict[str, float]


def score_case(case_id: str, split: str, label: np.ndarray, masks: np.ndarray) -> CaseScore:
    """Compare canonical labels (D, H, W) with predicted masks (D, H, W, 3), one per sub-region."""
    names = list(anatomy.SUBREGIONS)
    predicted = {name: masks[..., i] for i, name in enumerate(names)}
    scores = {name: dice(label == anatomy.SUBREGIONS[name], predicted[name]) for name in names}
    scores["mean"] = float(np.mean([scores[name] for name in names]))
    for region in ("WT", "TC"):
        ids = anatomy.REGIONS[region]
        members = [predicted[name] for name in names if anatomy.SUBREGIONS[name] in ids]
        scores[region] = dice(np.isin(label, ids), np.logical_or.reduce(members))
    return CaseScore(case_id, split, scores)


def mean_scores(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Mean over cases of each of `SCORES`; empty without cases."""
    rows = list(scores)
    return {name: float(np.mean([r.dice[name] for r in rows])) for name in SCORES} if rows else {}


def write_metrics(path: Path, scores: Sequence[CaseScore]) -> None:
    """Write `metrics.csv`: case_id, split, dice_<class>…, a row per case, in one step."""
    with (
        write_aside(path, "run.root") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["case_id", "split", *(f"dice_{name}" for name in SCORES)])
        for row in scores:
            values = [f"{row.dice[name]:.6f}" for name in SCORES]
            writer.writerow([row.case_id, row.split, *values])
