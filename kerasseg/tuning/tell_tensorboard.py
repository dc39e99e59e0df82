"""The search on TensorBoard's HParams page."""

import json

from kerasseg.tuning.hparams import write_hparams, write_hparams_config
from kerasseg.tuning.record import BASELINE, TrialRecord
from kerasseg.tuning.search import Search

_CONFIG = "*.hparams_config"


def tell_what_is_searched(search: Search) -> None:
    """Write it into the search's folder, once; `tensorboard --logdir` is started on that."""
    if not any(search.folder.glob(_CONFIG)):
        space = json.loads(search.settings.model_dump_json())["space"]
        write_hparams_config(search.folder, space, search.settings.objective)


def tell_how_it_went(search: Search, record: TrialRecord) -> None:
    """Write a trial that is done beside the curves of its runs."""
    if not record.is_done or record.trial_id == BASELINE:
        return
    space = json.loads(search.settings.model_dump_json())["space"]
    for execution in record.executions:
        scores = {} if execution.score is None else {search.settings.objective: execution.score}
        folder = search.folder / execution.run / "tensorboard"
        name = f"{record.number:04d}"  # TensorBoard sorts them as text
        write_hparams(folder, record.values, scores, name, space, record.status)
