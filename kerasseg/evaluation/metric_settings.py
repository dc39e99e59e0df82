"""Section `metrics` of an experiment -> what `case_metrics` takes."""

import math

from kerasseg.metrics.case_metrics import UNITS, MetricSettings
from kerasseg.metrics.empty_rule import EmptyRule
from kerasseg.metrics.lesion_wise import LesionSettings
from kerasseg.settings.metrics import MetricsSection


def metric_settings(section: MetricsSection) -> MetricSettings:
    """Every metric, at the section's tolerance, empty rule and challenge."""
    empty = EmptyRule(distance_one_empty=section.empty_distance)
    if section.empty == "skip":
        empty = EmptyRule(*(math.nan,) * 4)
    lesions = LesionSettings.of_challenge(section.lesions)
    return MetricSettings(tuple(UNITS), section.tolerance, empty, lesions)


def empty_rule_in_words(section: MetricsSection) -> str:
    """For a reader of the table."""
    if section.empty == "skip":
        return "A case where the class is empty in truth or prediction does not count."
    return (
        "A class empty in truth and prediction counts Dice 1 and distance 0 mm, empty in one of "
        f"them Dice 0 and distance {section.empty_distance:.5g} mm."
    )
