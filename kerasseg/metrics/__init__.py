"""Metrics: NumPy functions for whole volumes, Keras classes for training.

`case_metrics` compares two masks of a scan; `SegmentationMetrics` is a Keras metric.
"""

from typing import TYPE_CHECKING, Any

from kerasseg.metrics.case_metrics import CaseMetrics, MetricSettings, case_metrics

if TYPE_CHECKING:
    from kerasseg.metrics.segmentation import SegmentationMetrics

__all__ = ["CaseMetrics", "MetricSettings", "SegmentationMetrics", "case_metrics"]


def __getattr__(name: str) -> Any:
    """Import the Keras metric when it is asked for: measuring volumes needs no Keras."""
    if name != "SegmentationMetrics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kerasseg.metrics.segmentation import SegmentationMetrics

    return SegmentationMetrics
