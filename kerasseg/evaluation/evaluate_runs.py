"""`kerasseg evaluate RUN…`: the best model of finished runs on a side of their split."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from kerasseg import anatomy
from kerasseg.config_file import differences, dump_experiment
from kerasseg.evaluation.about import About
from kerasseg.evaluation.case_files import CaseFiles, Kind
from kerasseg.evaluation.finished_run import FinishedRun, read_finished_run
from kerasseg.evaluation.gather_files import gather_files
from kerasseg.evaluation.metric_settings import metric_settings
from kerasseg.evaluation.older_files import remove_older_files
from kerasseg.evaluation.peak_gpu_memory import peak_gpu_memory
from kerasseg.evaluation.predicted_cases import predicted_cases
from kerasseg.evaluation.results import Results
from kerasseg.evaluation.whole_volume import whole_volume
from kerasseg.evaluation.write_evaluation import write_evaluation
from kerasseg.inference.predictor_of import predictor_of
from kerasseg.records.store import RecordStore
from kerasseg.settings.metrics import MetricsSection
from kerasseg.training.callbacks.history import read_history

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
    runs = [read_finished_run(folder) for folder in folders]
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
    run: FinishedRun,
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
    network = keras.saving.load_model(run.checkpoint, compile=False)
    target = experiment.model.target
    predictor = predictor_of(experiment, network)
    results, wanted = Results(target), metric_settings(settings)
    for pair in predicted_cases(predictor, store, case_ids, split, files):
        results.add(pair, wanted)
    history = run.folder / "history.csv"
    facts = {
        "Run": str(run.folder.resolve()),
        "Split": f"{split}: {len(case_ids)} of {sum(len(run.split[s]) for s in _sides(run))} cases",
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
        history=read_history(history) if history.is_file() else (),
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


def _sides(run: FinishedRun) -> list[str]:
    return [name for name in ("train", "validation", "test") if name in run.split]


def _are_folds(runs: Sequence[FinishedRun]) -> bool:
    """Whether runs differ in nothing but their fold, and validate on different cases."""
    first = runs[0].experiment
    ids = [case_id for run in runs for case_id in run.split["validation"]]
    return len(set(ids)) == len(ids) and not any(
        differences(first, run.experiment, _SAME_IN_FOLDS) for run in runs[1:]
    )


def _about_folds(runs: Sequence[FinishedRun], abouts: Sequence[About]) -> About:
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
