"""Post-processing that was tuned for a run, kept in its folder."""

from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from kerasseg.config import Experiment
from kerasseg.errors import UserError
from kerasseg.settings.postprocessing import PostprocessingSettings, check_postprocessing
from kerasseg.write_aside import write_aside

TUNED_FILE: Final = "postprocessing.yaml"


def write_tuned(folder: Path, settings: PostprocessingSettings) -> Path:
    """Write them into the run `folder`, in the place of what was tuned before; returns the file."""
    path = folder / TUNED_FILE
    with write_aside(path, "run.root") as temporary:
        temporary.write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    return path


def with_tuned(folder: Path, experiment: Experiment) -> Experiment:
    """`experiment` with the post-processing that was tuned for the run, if it was.

    Raises `UserError` if the file cannot be understood.
    """
    path = folder / TUNED_FILE
    if not path.is_file():
        return experiment
    try:
        settings = PostprocessingSettings.model_validate(yaml.safe_load(path.read_text("utf-8")))
        check_postprocessing(settings, experiment.model.target)
    except (ValueError, yaml.YAMLError, ValidationError) as error:
        raise UserError(
            f"{path}: is no post-processing of this run ({str(error).splitlines()[0]}): tune it "
            "anew with kerasseg evaluate RUN --tune-postprocessing, or delete the file."
        ) from None
    return experiment.model_copy(update={"postprocessing": settings})
