"""What a run of an experiment logs, and so what a search can go by."""

import difflib

from kerasseg import anatomy
from kerasseg.config import Experiment
from kerasseg.errors import UserError
from kerasseg.evaluation.scores import score_columns


def objectives(experiment: Experiment) -> list[str]:
    """Columns of `history.csv`, besides those of the user's callbacks."""
    channels = anatomy.tumour_channels(experiment.model.target)
    metrics = [
        name if channel is None else f"{name}_{channel}"
        for name in ("dice", "iou", "precision", "recall")
        for channel in (None, *channels)
    ]
    logged = ["loss", *metrics]
    names = ["val_dice_smoothed", *(f"val_{name}" for name in logged), *logged]
    if experiment.training.validate_volumes_every is not None:
        columns = score_columns(experiment.model.target)
        names += [f"val_volume_dice_{name}" for name in columns]
    return names


def check_objective(name: str, experiment: Experiment, where: str) -> None:
    """Raise `UserError` for an objective that the experiment does not log."""
    known = objectives(experiment)
    if name in known or experiment.training.callbacks:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    volumes = ""
    if name.startswith("val_volume") and experiment.training.validate_volumes_every is None:
        volumes = " Whole volumes are validated with training.validate_volumes_every."
    raise UserError(
        f"{where}: search.objective: {name} is not logged.{hint}{volumes} There are "
        f"{', '.join(known)}."
    )
