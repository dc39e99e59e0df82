"""Scores of several runs on the cases that all of them have."""

from dataclasses import dataclass

import numpy as np

from kerasseg import anatomy
from kerasseg.evaluation.paired import PairedDifference, compare_paired
from kerasseg.evaluation.scores import CaseScore
from kerasseg.evaluation.summary import Means, summarise
from kerasseg.settings.metrics import MetricsSection


@dataclass(frozen=True)
class Comparison:
    """Runs by their names, on the cases that all of them have: scores in one order of cases.

    differences: other run -> class -> metric -> that run minus the first one
    averaged:    the classes of a case's mean Dice, the same for every run
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    scores: dict[str, list[CaseScore]]
    means: dict[str, Means]
    differences: dict[str, dict[str, dict[str, PairedDifference]]]
    averaged: tuple[str, ...]

    def mean_dice(self, score: CaseScore) -> float:
        """Of a case; NaN where a class does not count."""
        return float(np.mean([score.classes[name].values["dice"] for name in self.averaged]))


def compare(scores: dict[str, list[CaseScore]], settings: MetricsSection) -> Comparison:
    """Scores of each run, of the cases and classes that all have."""
    names = tuple(scores)
    by_id = {name: {score.case_id: score for score in scores[name]} for name in names}
    common = [c for c in by_id[names[0]] if all(c in by_id[name] for name in names)]
    ordered = {name: [by_id[name][case_id] for case_id in common] for name in names}
    first = ordered[names[0]]
    classes = [c for c in first[0].classes if all(c in ordered[n][0].classes for n in names)]
    patients = [score.patient_id or score.case_id for score in first]
    differences = {
        name: {
            c: {
                metric: compare_paired(
                    [score.classes[c].values[metric] for score in first],
                    [score.classes[c].values[metric] for score in ordered[name]],
                    patients=patients,
                    resamples=settings.resamples,
                    confidence=settings.confidence,
                )
                for metric in first[0].classes[c].values
            }
            for c in classes
        }
        for name in names[1:]
    }
    means = {
        name: {c: row for c, row in summarise(ordered[name], settings).items() if c in classes}
        for name in names
    }
    # The mean column of one target is not that of another: WT, TC, ET against NCR, ED, ET.
    averaged = tuple(anatomy.SUBREGIONS if "NCR" in classes else classes)
    return Comparison(names, tuple(classes), ordered, means, differences, averaged)
