"""`kerasseg evaluate RUN RUN… --ensemble mean`: finished runs as one model."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import keras

from kerasseg.config_file import dump_experiment
from kerasseg.errors import UserError
from kerasseg.evaluation.about import About
from kerasseg.evaluation.case_files import CaseFiles, Kind
from kerasseg.evaluation.evaluate_runs import image_of
from kerasseg.evaluation.finished_run import FinishedRun, read_finished_run
from kerasseg.evaluation.metric_settings import metric_settings
from kerasseg.evaluation.older_files import remove_older_files
from kerasseg.evaluation.predicted_cases import predicted_cases
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.write_evaluation import write_evaluation
from kerasseg.inference.ensemble_of import Member, ensemble_of
from kerasseg.inference.predictor_of import predictor_of
from kerasseg.records.store import RecordStore
from kerasseg.settings.metrics import MetricsSection

_SETTING = "--output"
"""What would move the folder, for messages."""


def evaluate_ensemble(
    folders: Sequence[Path],
    split: str,
    combine: Literal["mean", "vote"],
    output: Path,
    settings: MetricsSection | None = None,
    save: Collection[Kind] = (),
) -> Path:
    """Write tables, figures and the page of the ensemble into `output`; returns the page.

    save: what is written of every case besides its scores, into folders of these names

    Folds, seeds and architectures, 2-D and 3-D, that were trained on one store. A case is scored
    where every run has it on this side of its split, as no network may have been trained on it.
    Raises `UserError` for runs that do not go together.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("--ensemble: name two or more different run folders.")
    runs = [read_finished_run(folder) for folder in folders]
    case_ids = _unseen(runs, split)
    store = _one_store(runs)
    networks = [keras.saving.load_model(run.checkpoint, compile=False) for run in runs]
    ensemble = ensemble_of([_member(r, n) for r, n in zip(runs, networks, strict=True)], combine)
    settings = settings or runs[0].experiment.metrics
    results, wanted = Results(ensemble.target), metric_settings(settings)
    files = CaseFiles(output, runs[0].experiment.data, _SETTING, save)
    for pair in predicted_cases(ensemble, store, case_ids, split, files):
        results.add(pair, wanted)
    names = " ".join(str(folder) for folder in folders)
    options = " ".join(["", *(f"--save-{kind}" for kind in save)])
    words = {"mean": "mean of their probabilities", "vote": "vote of their masks"}[combine]
    warnings = []
    if split == "train":
        warnings.append("The networks were trained on these cases: they say nothing about others.")
    if combine == "vote":
        warnings.append(
            "Probabilities are shares of votes: calibration, ROC and threshold are those of "
            f"{len(runs) + 1} levels."
        )
    warnings += remove_older_files(output, save, files.written, _SETTING)
    about = About(
        title=f"Ensemble of {len(runs)} runs: {split} cases",
        kind=f"Best models of {len(runs)} runs, {words}",
        command=f"kerasseg evaluate {names} --split {split} --ensemble {combine} -o {output}"
        + options,
        facts={
            "Runs": ", ".join(str(run.folder.resolve()) for run in runs),
            "Split": f"{split}: the {len(case_ids)} cases that all runs have on this side",
            "Networks": "; ".join(f"{n.name}, {n.count_params():,} parameters" for n in networks),
            "Data fingerprint": str(runs[0].environment.get("data_fingerprint")),
            "Store": str(store.root),
        },
        warnings=warnings,
        settings=settings,
        config="\n".join(f"# {r.folder}\n{dump_experiment(r.experiment)}" for r in runs),
        environment=runs[0].environment,
        image_of=lambda case_id: image_of(store, case_id),
    )
    return write_evaluation(output, results, about, _SETTING)


def _member(run: FinishedRun, network: keras.Model) -> Member:
    return Member(str(run.folder), run.experiment, predictor_of(run.experiment, network))


def _unseen(runs: Sequence[FinishedRun], split: str) -> list[str]:
    """The cases that every run has on this side, in the first one's order."""
    sides = [set(run.case_ids(split)) for run in runs]
    common = set.intersection(*sides)
    if not common:
        raise UserError(
            f"--ensemble: {', '.join(str(run.folder) for run in runs)} have no {split} case in "
            "common, so that every case was seen by a network in its training. Folds have their "
            "test cases in common (--split test, with split.test above 0); out of fold, kerasseg "
            "evaluate puts them together without --ensemble."
        )
    return [case_id for case_id in runs[0].case_ids(split) if case_id in common]


def _one_store(runs: Sequence[FinishedRun]) -> RecordStore:
    stores = [run.open_store() for run in runs]
    for run, store in zip(runs, stores, strict=True):
        if store.root.resolve() != stores[0].root.resolve():
            raise UserError(
                f"--ensemble: {runs[0].folder} was trained on {stores[0].root}, but "
                f"{run.folder} on {store.root}, whose modalities, grid or intensities are others: "
                "let kerasseg predict RUN RUN… make the segmentations from the scans, and score "
                "these with kerasseg evaluate --pred DIR --truth DIR."
            )
    return stores[0]
