"""What a report says beside its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasseg.settings.metrics import MetricsSection


def _no_image(case_id: str) -> np.ndarray | None:
    return None


@dataclass(frozen=True)
class About:
    """Where the cases and the predictions come from.

    title, kind:  of the page; what was evaluated in a few words
    facts:        heading -> words, shown above
    warnings:     what a reader of the scores must know
    command:      that gives this page again
    settings:     section `metrics`
    config, environment, history: of the run; empty where there is none
    best_epoch:   of the history
    image_of:     case id -> a modality (D, H, W) on the grid of the masks, air 0, or None
    """

    title: str
    kind: str
    command: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    settings: MetricsSection = field(default_factory=MetricsSection)
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, str]] = ()
    best_epoch: int = 0
    image_of: Callable[[str], np.ndarray | None] = _no_image
