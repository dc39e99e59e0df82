"""Dice of whole cases, and the table of them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasseg import anatomy
from kerasseg.metrics.dice import dice
from kerasseg.write_aside import write_aside

_UNIONS = ("WT", "TC")
"""Regions that are unions of sub-regions; ET is one itself."""

_SUBREGIONS = "Mean of NCR, ED and ET; WT and TC are the unions NCR+ED+ET and NCR+ET."
_REGIONS = "Mean of WT (whole tumour), TC (tumour core) and ET (enhancing tumour)."
_MEANINGS = {"labels": _SUBREGIONS, "subregions": _SUBREGIONS, "regions": _REGIONS, "binary": ""}


@dataclass(frozen=True)
class CaseScore:
    """Dice of one case. `dice` maps each of `score_columns` to 0..1; `figures` are the names of
    its drawings in the folder `figures`."""

    case_id: str
    split: str
    dice: dict[str, float]
    figures: tuple[str, ...] = ()


def score_columns(target: str) -> tuple[str, ...]:
    """What is scored: the target's channels but the background; where there are several their
    mean, and of sub-regions the whole tumour and the tumour core."""
    channels = anatomy.tumour_channels(target)
    if len(channels) == 1:
        return channels
    return (*channels, "mean", *(region for region in _UNIONS if region not in channels))


def columns_in_words(target: str) -> str:
    """What the columns mean beyond their names; empty where there is nothing to say."""
    return _MEANINGS[target]


def score_case(
    case_id: str, split: str, label: np.ndarray, masks: np.ndarray, target: str
) -> CaseScore:
    """Compare canonical labels (D, H, W) with predicted masks (D, H, W, K), one per channel.

    Each channel is scored as it was predicted, also where masks of sub-regions overlap or TC lies
    outside WT; the unions are those of the sub-regions' masks.
    """
    ids = anatomy.TARGETS[target]
    predicted = {name: masks[..., i] for i, name in enumerate(ids)}
    channels = anatomy.tumour_channels(target)
    scores = {name: dice(np.isin(label, ids[name]), predicted[name]) for name in channels}
    for column in score_columns(target)[len(channels) :]:
        if column == "mean":
            scores["mean"] = float(np.mean([scores[name] for name in channels]))
            continue
        region_ids = anatomy.REGIONS[column]
        members = [predicted[name] for name in channels if set(ids[name]) <= set(region_ids)]
        scores[column] = dice(np.isin(label, region_ids), np.logical_or.reduce(members))
    return CaseScore(case_id, split, scores)


def mean_scores(scores: Iterable[CaseScore]) -> dict[str, float]:
    """Mean over cases of each column; empty without cases."""
    rows = list(scores)
    columns = rows[0].dice if rows else {}
    return {name: float(np.mean([row.dice[name] for row in rows])) for name in columns}


def write_metrics(path: Path, scores: Sequence[CaseScore], target: str) -> None:
    """Write `metrics.csv`: case_id, split, dice_<column>…, a row per case, in one step."""
    columns = score_columns(target)
    with (
        write_aside(path, "run.root") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["case_id", "split", *(f"dice_{name}" for name in columns)])
        for row in scores:
            values = [f"{row.dice[name]:.6f}" for name in columns]
            writer.writerow([row.case_id, row.split, *values])
