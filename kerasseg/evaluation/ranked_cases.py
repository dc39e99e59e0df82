"""Which cases to look at."""

from collections.abc import Sequence

import numpy as np

from kerasseg.evaluation.scores import CaseScore


def mean_dice(score: CaseScore) -> float:
    """Over the target's channels; NaN where none counts."""
    return score.dice["mean"] if "mean" in score.dice else next(iter(score.dice.values()))


def ranked_cases(scores: Sequence[CaseScore]) -> dict[str, CaseScore]:
    """worst, median and best -> the case by its mean Dice, each case once; `only` where there is
    one. Cases where the empty rule decided everything are left out, as they show nothing, unless
    there are no others."""
    shown = [s for s in scores if any(c.empty == "neither" for c in s.classes.values())]
    rows = [s for s in shown or scores if np.isfinite(mean_dice(s))]
    rows.sort(key=mean_dice)
    if not rows:
        return {}
    if len(rows) == 1:
        return {"only": rows[0]}
    chosen = {"worst": rows[0], "median": rows[(len(rows) - 1) // 2], "best": rows[-1]}
    found: dict[str, CaseScore] = {}
    for rank in ("worst", "best", "median"):
        if chosen[rank].case_id not in {score.case_id for score in found.values()}:
            found[rank] = chosen[rank]
    return {rank: found[rank] for rank in ("worst", "median", "best") if rank in found}
