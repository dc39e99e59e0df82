"""`kerasseg evaluate RUN --tune-postprocessing`: the post-processing that pays, found on validation
cases and kept with the run."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.errors import storage_error
from kerasseg.evaluation.evaluate import segment_cases
from kerasseg.inference.postprocessing import postprocessed_masks
from kerasseg.inference.predictor import build_predictor
from kerasseg.metrics.overlap import dice
from kerasseg.run import read_run, write_postprocessing

THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7)
MINIMUM_VOLUMES: Final = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Volumes in mm³."""
MINIMUM_ENHANCING: Final = (20.0, 50.0, 100.0, 200.0, 500.0)
"""Volumes in mm³."""
_ROUNDING: Final = 1e-6
"""A Dice that is higher by less than this is not a gain."""


@dataclass(frozen=True)
class TuningCase:
    """A validation case: probabilities (D, H, W, K), canonical labels (D, H, W), spacing in mm."""

    probabilities: np.ndarray
    label: np.ndarray
    spacing: Sequence[float]


def tune_postprocessing(
    cases: Sequence[TuningCase], target: str, threshold: float = 0.5
) -> PostprocessingSettings:
    """Find the settings with the best mean Dice greedily; what gains nothing is off.

    One operation after the other, of each channel by itself: the threshold (of `threshold` and
    `THRESHOLDS`; not of a softmax target), the smallest component, the largest alone, holes; at
    last the rule for enhancing tumour. Each takes the value of its grid by which the Dice, mean
    over the cases and over all channels but the background, is highest; of equals the first, which
    is off. What was chosen before stays.

    Args:
        cases: cases that were not trained on; scores are then to be reported of still other ones.
            They are gone through once for every value, so each may be read when it is asked for.
        target: a key of `anatomy.TARGETS`.
        threshold: `evaluation.threshold`, from which a voxel belongs to a channel.
    """
    if not len(cases):
        raise ValueError("tune_postprocessing needs at least one case, found none")
    best = PostprocessingSettings()
    best_score = mean_dice(cases, target, threshold, best)
    for steps in _steps(target):
        chosen = best
        for name, channel, value in steps:
            candidate = _changed(best, name, channel, value)
            score = mean_dice(cases, target, threshold, candidate)
            if score > best_score + _ROUNDING:
                chosen, best_score = candidate, score
        best = chosen
    return best


def _steps(target: str) -> Iterator[list[tuple[str, str, Any]]]:
    """Yield what is chosen at once: setting, channel and value of every candidate."""
    channels = anatomy.tumour_channels(target)
    grids: dict[str, tuple[Any, ...]] = {
        "thresholds": () if anatomy.ACTIVATIONS[target] == "softmax" else THRESHOLDS,
        "minimum_volume": MINIMUM_VOLUMES,
        "keep_largest": (True,),
        "fill_holes": (True,),
    }
    for name, values in grids.items():
        for channel in channels:
            yield [(name, channel, value) for value in values]
    if "ET" in channels:
        yield [("minimum_enhancing", "ET", value) for value in MINIMUM_ENHANCING]


def _changed(
    settings: PostprocessingSettings, name: str, channel: str, value: Any
) -> PostprocessingSettings:
    before = getattr(settings, name)
    after = value
    if isinstance(before, dict):
        after = before | {channel: value}
    elif isinstance(before, tuple):
        after = (*before, channel)
    return settings.model_copy(update={name: after})


def mean_dice(
    cases: Sequence[TuningCase], target: str, threshold: float, settings: PostprocessingSettings
) -> float:
    """Return the mean Dice over cases and channels but the background, of masks by `settings`."""
    names = list(anatomy.TARGETS[target])
    channels = [names.index(name) for name in anatomy.tumour_channels(target)]
    scores = []
    for case in cases:
        truth = targets.label_to_masks(case.label, target)
        found = postprocessed_masks(case.probabilities, target, case.spacing, threshold, settings)
        scores.append([dice(truth[..., i], found[..., i]) for i in channels])
    return float(np.mean(scores))


@dataclass(frozen=True)
class Tuned:
    """Post-processing that was chosen.

    Attributes:
        before: mean Dice of the validation cases without any post-processing.
        after: their mean Dice with it.
    """

    settings: PostprocessingSettings
    path: Path
    before: float
    after: float


def tune_run(folder: Path) -> Tuned:
    """Choose the post-processing of a run on its validation cases, and keep it in its folder.

    `kerasseg predict` and `kerasseg evaluate` use it from then on. Raises `UserError` for a folder
    that cannot be evaluated.
    """
    run = read_run(folder)
    experiment, cases = run.experiment, {"validation": run.case_ids("validation")}
    store = run.open_store()
    target, threshold = experiment.model.target, experiment.evaluation.threshold
    predictor = build_predictor(experiment, run.load_network())
    with tempfile.TemporaryDirectory(prefix="kerasseg-tune-") as folder_of_cases:
        paths = []
        for number, case in enumerate(segment_cases(predictor, store, cases)):
            paths.append(Path(folder_of_cases) / f"{number}.npz")
            try:
                np.savez(
                    paths[-1],
                    probabilities=case.probabilities,
                    label=case.label,
                    spacing=case.stored.case.spacing,
                )
            except OSError as error:
                doing = f"Writing probabilities into {folder_of_cases}"
                raise storage_error(error, doing, "the environment variable TMPDIR") from error
        stored = _StoredCases(paths)
        settings = tune_postprocessing(stored, target, threshold)
        before, after = (
            mean_dice(stored, target, threshold, chosen)
            for chosen in (PostprocessingSettings(), settings)
        )
    return Tuned(settings, write_postprocessing(folder, settings), before, after)


class _StoredCases(Sequence[TuningCase]):
    """Cases that are read each time they are asked for, as they may not fit into memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        with np.load(self._paths[index]) as stored:
            spacing = tuple(float(s) for s in stored["spacing"])
            return TuningCase(stored["probabilities"], stored["label"], spacing)
