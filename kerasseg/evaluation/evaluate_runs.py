"""`kerasseg evaluate RUN…`: the best model of finished runs on a side of their split.

A run folder, read back to be evaluated.

`kerasseg evaluate RUN RUN… --ensemble mean`: finished runs as one model.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from kerasseg import anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.config.load import differences, dump_experiment
from kerasseg.errors import UserError
from kerasseg.evaluation.case_files import CaseFiles, Kind, gather_files, remove_older_files
from kerasseg.evaluation.evaluate import predicted_cases
from kerasseg.evaluation.results import Results, whole_volume
from kerasseg.evaluation.scores import metric_settings
from kerasseg.evaluation.write_evaluation import About, write_evaluation
from kerasseg.inference.ensemble import Member, build_ensemble
from kerasseg.inference.predictor import build_predictor
from kerasseg.records.store import RecordStore
from kerasseg.run import SIDES, Run, read_run
from kerasseg.tensorflow_setup import peak_gpu_memory

_SETTING = "run.root"
"""What would move the folders, for messages."""
_SAME_IN_FOLDS = ("data", "pipeline", "augment", "model", "loss", "optimizer", "training")


def evaluate_runs(
    folders: Sequence[Path],
    split: str,
    settings: MetricsSection | None = None,
    save: Collection[Kind] = (),
) -> list[Path]:
    """Write `RUN/evaluation_<split>/` for each run; returns the pages.

    The validation cases of several folds are also put together, as every case was then predicted
    by a network that had not seen it: `<run.name>_out_of_fold/` beside the runs.

    settings: instead of those of the runs
    save:     what is written of every case besides its scores, into folders of these names

    Raises `UserError` for a folder that cannot be evaluated, before any is.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        run.case_ids(split)
    pages, found, written = [], [], []
    for run in runs:
        folder = run.folder / f"evaluation_{split}"
        files = CaseFiles(folder, run.experiment.data, _SETTING, save)
        results, about = evaluate_run(run, split, settings, files)
        pages.append(_write(folder, results, about, files.written, save))
        found.append((results, about))
        written += files.written
    if len(runs) > 1 and split == "validation" and _are_folds(runs):
        whole = Results(runs[0].experiment.model.target).extend(r for r, _ in found)
        about = _about_folds(runs, [about for _, about in found])
        folder = runs[0].folder.parent / f"{runs[0].experiment.run.name}_out_of_fold"
        gathered = gather_files(written, folder, _SETTING)
        pages.append(_write(folder, whole, about, gathered, save))
    return pages


def evaluate_run(
    run: Run,
    split: str,
    settings: MetricsSection | None = None,
    files: CaseFiles | None = None,
) -> tuple[Results, About]:
    """Segment the cases of one side of the split with the run's best model, and write `files`."""
    experiment = run.experiment
    settings = settings or experiment.metrics
    store = run.open_store()
    case_ids, damaged = run.case_ids(split), {}
    if experiment.records.on_damaged_record == "skip":
        damaged = store.damaged_records(case_ids)
        case_ids = [case_id for case_id in case_ids if case_id not in damaged]
    network = run.load_network()
    target = experiment.model.target
    predictor = build_predictor(experiment, network)
    results, wanted = Results(target), metric_settings(settings)
    for pair in predicted_cases(predictor, store, case_ids, split, files):
        results.add(pair, wanted)
    facts = {
        "Run": str(run.folder.resolve()),
        "Split": f"{split}: {len(case_ids)} of {sum(len(run.split[s]) for s in SIDES)} cases",
        "Task": run.summary.get("task", f"{experiment.model.dimensions}-D, {target}"),
        "Network": f"{network.name}, {network.count_params():,} parameters",
        "Data fingerprint": str(run.environment.get("data_fingerprint")),
        "Store": str(store.root),
    }
    gpu = peak_gpu_memory()
    if gpu is not None:
        facts["Peak GPU memory"] = f"{gpu / 2**30:.2f} GiB"
    warnings = [*run.summary.get("warnings", ()), *damaged.values()]
    if run.split.get("overfit_check") or split == "train":
        warnings.insert(
            0, "The network was trained on these cases: they say nothing about other patients."
        )
    about = About(
        title=f"{experiment.run_name}: {split} cases",
        kind=f"Best model of {run.folder}",
        command=f"kerasseg evaluate {run.folder} --split {split}",
        facts=facts,
        warnings=warnings,
        settings=settings,
        config=dump_experiment(experiment),
        environment=run.environment,
        history=run.history,
        best_epoch=int(run.summary.get("best_epoch", 0)),
        image_of=lambda case_id: image_of(store, case_id),
    )
    return results, about


def image_of(store: RecordStore, case_id: str) -> np.ndarray:
    """FLAIR, or the first modality without it, of the whole scan (D, H, W), air 0."""
    stored = store.load(case_id)
    names = list(stored.case.modalities)
    channel = names.index(anatomy.FLAIR) if anatomy.FLAIR in names else 0
    return whole_volume(stored, stored.case.image[..., channel])


def _write(
    folder: Path, results: Results, about: About, written: Sequence[Path], save: Collection[Kind]
) -> Path:
    older = remove_older_files(folder, save, written, _SETTING)
    command = " ".join([about.command, *(f"--save-{kind}" for kind in save)])
    about = replace(about, command=command, warnings=[*about.warnings, *older])
    return write_evaluation(folder, results, about, _SETTING)


def _are_folds(runs: Sequence[Run]) -> bool:
    """Whether runs differ in nothing but their fold, and validate on different cases."""
    first = runs[0].experiment
    ids = [case_id for run in runs for case_id in run.split["validation"]]
    return len(set(ids)) == len(ids) and not any(
        differences(first, run.experiment, _SAME_IN_FOLDS) for run in runs[1:]
    )


def _about_folds(runs: Sequence[Run], abouts: Sequence[About]) -> About:
    places = {
        c: about for run, about in zip(runs, abouts, strict=True) for c in run.split["validation"]
    }
    first = abouts[0]
    return About(
        title=f"{runs[0].experiment.run.name}: out-of-fold predictions",
        kind=f"{len(runs)} folds, each case predicted by the network that had not seen it",
        command=f"kerasseg evaluate {' '.join(str(run.folder) for run in runs)} --split validation",
        facts={
            "Runs": ", ".join(str(run.folder) for run in runs),
            "Task": first.facts["Task"],
            "Network": first.facts["Network"],
            "Data fingerprint": first.facts["Data fingerprint"],
        },
        warnings=list(dict.fromkeys(w for about in abouts for w in about.warnings)),
        settings=first.settings,
        config=first.config,
        environment=first.environment,
        image_of=lambda case_id: places[case_id].image_of(case_id),
    )


_OUTPUT_SETTING = "--output"
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
    runs = [read_run(folder) for folder in folders]
    case_ids = _unseen(runs, split)
    store = _one_store(runs)
    networks = [run.load_network() for run in runs]
    ensemble = build_ensemble([_member(r, n) for r, n in zip(runs, networks, strict=True)], combine)
    settings = settings or runs[0].experiment.metrics
    results, wanted = Results(ensemble.target), metric_settings(settings)
    files = CaseFiles(output, runs[0].experiment.data, _OUTPUT_SETTING, save)
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
    warnings += remove_older_files(output, save, files.written, _OUTPUT_SETTING)
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
    return write_evaluation(output, results, about, _OUTPUT_SETTING)


def _member(run: Run, network: keras.Model) -> Member:
    return Member(str(run.folder), run.experiment, build_predictor(run.experiment, network))


def _unseen(runs: Sequence[Run], split: str) -> list[str]:
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


def _one_store(runs: Sequence[Run]) -> RecordStore:
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
