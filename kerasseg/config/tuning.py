"""A tune file: which experiment the trials start from, and what is searched."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kerasseg.config.base import Folder, Section, setting


def known_direction(objective: str) -> str | None:
    """Return in which direction a column of history.csv is better, None of one that is not ours."""
    name = objective.removeprefix("val_").removeprefix("volume_")
    if name == "loss":
        return "min"
    return "max" if name.split("_")[0] in ("dice", "iou", "precision", "recall") else None


class SearchSettings(Section):
    """Section `search`: what is tried, how, how long, and where it is kept."""

    name: str = setting(
        "search", "Name of the search, and of its folder.", pattern=r"^[\w][\w.-]*$", max_length=80
    )
    root: Folder = setting(Path("tuning"), "Folder that holds the searches' folders.")
    space: dict[str, Any] = setting(
        {},
        "What is searched: settings by their dotted names, each a choice, int, float or boolean.",
        min_length=1,
    )
    tuner: Literal["random", "grid", "bayesian", "hyperband"] = setting(
        "bayesian", "How the next trial is chosen (docs/tuning.md)."
    )
    objective: str = setting(
        "val_dice_smoothed",
        "A column of history.csv; a trial's score is its best epoch's.",
        pattern=r"^\w+$",
    )
    direction: Literal["max", "min"] = setting(
        lambda values: known_direction(values.get("objective", "")),
        "Whether a higher or a lower objective is better. Default: min for losses and max for "
        "scores; a column of a callback of your own has no default.",
    )
    max_trials: int | None = setting(
        lambda values: 20 if values.get("tuner") in ("random", "bayesian") else None,
        "Most trials. Default: 20; for grid and hyperband null, which means all there are.",
        ge=1,
        le=100_000,
    )
    executions_per_trial: int = setting(
        1, "Runs per trial, each with a seed of its own; the score is their mean.", ge=1, le=100
    )
    epochs: int | None = setting(
        None,
        "Epochs of a trial, of hyperband the most. Default: training.epochs of the base.",
        unit="epochs",
        ge=1,
        le=100_000,
    )
    patience: int | None = setting(
        None,
        "Epochs without a better smoothed validation Dice before a trial stops. Default: "
        "training.early_stopping_patience of the base.",
        unit="epochs",
        ge=1,
    )
    minutes: float | None = setting(
        None,
        "Time the search may take, over all its starts: after it no trial begins, and those under "
        "way stop at the end of their epoch, to go on when there is more time.",
        unit="minutes",
        gt=0.0,
    )
    seed: int = setting(0, "Seed of the choice of trials.", ge=0, le=2**31 - 2)
    baseline: bool = setting(
        True, "Also run the base experiment unchanged, as trial 0, to see what the search gained."
    )
    parallel: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = setting(
        "auto",
        "Trials at a time on this machine. auto: one on each GPU, without one a single trial. With "
        "more than one, each has a GPU of its own.",
    )
    factor: int = setting(
        3,
        "hyperband: one of so many trials continues, for so many times as many epochs.",
        ge=2,
        le=10,
    )
    iterations: int = setting(
        1, "hyperband: how often the whole procedure is repeated.", ge=1, le=100
    )
    stop_after_failures: int | None = setting(
        5, "Failed trials in a row after which the search ends; null: never.", ge=1
    )
    worker_timeout: float = setting(
        300.0,
        "Several machines: time without a sign of life after which the chief counts a worker "
        "as lost and gives its trial to another.",
        unit="seconds",
        ge=2.0,
    )
    chief_timeout: float = setting(
        900.0,
        "Several machines: how long a worker waits for a chief that does not answer, while it "
        "trains on, before it stops its trial and ends.",
        unit="seconds",
        ge=2.0,
    )

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        self.check_only_for("search", ("factor", "iterations"), "tuner", ["hyperband"])
        return self


class TuneFile(Section):
    """A whole tune file."""

    base: Path | None = setting(
        None,
        "Config of the experiment that the trials start from, relative to this file, or the name "
        "of a ready one.",
    )
    overrides: tuple[str, ...] = setting((), "section.key=value overrides of the base.")
    search: SearchSettings
