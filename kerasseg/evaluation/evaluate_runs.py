"""Finished runs on a side of their split: one by one, as folds, or as one model.

`kerasseg evaluate RUN…` segments the cases with each run's best network; training ends with the
same loop and the same page.
"""

import shlex
from collections import ChainMap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import differences, dump_experiment
from kerasseg.errors import UserError
from kerasseg.evaluation.case_files import CaseFiles, Kind, gather_files, remove_older_files
from kerasseg.evaluation.evaluate import score_cases
from kerasseg.evaluation.report import write_evaluation, write_report
from kerasseg.evaluation.report_figures import draw_first_cases, draw_training
from kerasseg.evaluation.results import Provenance, Results, flair_of
from kerasseg.files import folder_suffix
from kerasseg.inference.ensemble import EnsembleRun, build_ensemble
from kerasseg.inference.predictor import build_predictor
from kerasseg.records.store import RecordStore
from kerasseg.run import SIDES, Run
from kerasseg.tensorflow_setup import peak_gpu_memory

_SETTING = "run.root"
"""The option that error messages name where a run folder cannot be written."""
_SAME_IN_FOLDS = ("data", "pipeline", "augment", "model", "loss", "optimizer", "training")
_DAMAGED = "of the split, because the record is damaged on the disk"
_TRAINED_ON = "The network was trained on these cases: they say nothing about other patients."

_PROMPTED = (
    "The prompt of every slice was made of the truth: these scores say how well a tumour is "
    "outlined that somebody has pointed at. They do not compare with scores of a model that must "
    "find it."
)


def evaluate_runs(runs: Sequence[Run], split: str, save: Collection[Kind] = ()) -> list[Path]:
    """Write `RUN/evaluation_<split>/` for each run; of settings that differ a folder of its own.

    The validation cases of several folds are also put together, as every case was then predicted by
    a network that had not seen it: `<run.name>_out_of_fold/` beside the runs. Returns the pages.
    Raises `UserError` if a run cannot be evaluated; where its split lacks the side, before any is.

    Args:
        runs: the runs; the folder of one that was read with overrides has their names behind it.
        split: side of their split, one of `SIDES`.
        save: what is written of every case besides its scores, into folders of these names.
    """
    for run in runs:
        run.case_ids(split)
    suffix = folder_suffix(text.partition(".")[2] for text in runs[0].overrides)
    pages, found, written = [], [], []
    for run in runs:
        folder = run.folder / f"evaluation_{split}{suffix}"
        files = CaseFiles(folder, run.experiment.data, _SETTING, save)
        results, provenance = evaluate_run(run, split, files)
        pages.append(_write(folder, results, provenance, files.written, save))
        found.append((results, provenance))
        written += files.written
    if len(runs) == 1 or split != "validation":
        return pages
    if _are_folds(runs):
        first = found[0][0]
        whole = Results(first.target, first.settings, first.prompt).extend(
            results for results, _ in found
        )
        provenance = _provenance_of_folds(runs, [provenance for _, provenance in found])
        folder = runs[0].folder.parent / f"{runs[0].experiment.run.name}_out_of_fold{suffix}"
        gathered = gather_files(written, folder, _SETTING)
        pages.append(_write(folder, whole, provenance, gathered, save))
    elif all(run.experiment.split.method == "kfold" for run in runs):
        print("The folds have no page in common: their settings differ, or they share cases.")
    return pages


def evaluate_run(
    run: Run, split: str, files: CaseFiles | None = None
) -> tuple[Results, Provenance]:
    """Segment the cases of one side of the split with the run's best network, and score them.

    Args:
        files: where label maps and probabilities are written, if they are.
    """
    experiment = run.experiment
    store = run.open_store()
    case_ids, damaged = run.case_ids(split), {}
    if experiment.records.on_damaged_record == "skip":
        damaged = store.damaged_records(case_ids)
        case_ids = [case_id for case_id in case_ids if case_id not in damaged]
    network = run.load_network()
    predictor = build_predictor(experiment, network)
    cases = {split: case_ids}
    results = score_cases(predictor, store, cases, experiment.metrics, files)[split]
    provenance = _provenance_of_run(run, store, run.summary, network)
    all_cases = sum(len(run.split[side]) for side in SIDES)
    warnings = list(provenance.warnings)
    if split == "train" and _TRAINED_ON not in warnings:
        warnings.insert(0, _TRAINED_ON)
    provenance = replace(
        provenance,
        title=f"{experiment.run_name}: {split} cases",
        subtitle=f"Best model of {run.folder}",
        commands={"Again": _command([run], f"--split {split}")},
        facts={"Split": f"{split}: {len(case_ids)} of {all_cases} cases", **provenance.facts},
        warnings=warnings,
        left_out={_DAMAGED: damaged},
    )
    return results, provenance


def write_training_report(
    run: Run, store: RecordStore, results: Mapping[str, Results], summary: Mapping[str, Any]
) -> Path:
    """Write what a training leaves in its run folder: scores, summary, figures and their page.

    Returns the page, `report.html`.

    Args:
        results: side of the split -> the results of its cases.
        summary: what `summary.json` holds, with what `evaluation_summary` gives.
    """
    provenance = replace(
        _provenance_of_run(run, store, summary),
        title=run.experiment.run_name,
        subtitle=str(summary["task"]),
        commands={
            "Train again": f"kerasseg train --config {run.folder}/config.yaml",
            "All figures on one page": f"kerasseg evaluate {run.folder}",
        },
        left_out={
            "of the data set, because something is wrong with the files": summary["skipped_cases"],
            _DAMAGED: summary["damaged_records"],
        },
    )
    drawings = chain(
        draw_training(provenance, run.experiment.model.target),
        draw_first_cases(results, store, run.experiment.evaluation.overlays),
    )
    return write_report(run.folder, results, summary, provenance, drawings, _SETTING)


def _provenance_of_run(
    run: Run, store: RecordStore, summary: Mapping[str, Any], network: Any = None
) -> Provenance:
    """Return what is known of a run, old runs' summaries included, which say less."""
    experiment = run.experiment
    name = network.name if network is not None else experiment.model.network
    parameters = network.count_params() if network is not None else summary["parameters"]
    facts = {
        "Run": str(run.folder.resolve()),
        "Cases": ", ".join(f"{len(run.split[side])} {side}" for side in SIDES),
        "Task": summary.get("task", f"{experiment.model.dimensions}-D, {experiment.model.target}"),
        "Network": f"{name}, {parameters:,} parameters",
    }
    if "epochs" in summary:
        stopped = " (stopped early)" if summary.get("stopped_early") else ""
        facts["Training"] = (
            f"{summary['epochs']} of {summary['epochs_planned']} epochs{stopped}, the best is "
            f"epoch {summary['best_epoch']}; {summary['precision']} on {summary['device']}"
        )
    facts |= {"Data fingerprint": run.data_fingerprint, "Store": str(store.root)}
    facts |= describe_inference(experiment)
    if run.overrides:
        facts["Changed"] = ", ".join(run.overrides)
    gpu = peak_gpu_memory()
    if gpu is not None:
        facts["Peak GPU memory"] = f"{gpu / 2**30:.2f} GiB"
    warnings = list(summary.get("warnings", ()))
    if run.split.get("overfit_check"):
        warnings.insert(0, f"Over-fit check. {_TRAINED_ON}")
    if experiment.model.sam.prompt_of_truth:
        warnings.insert(0, _PROMPTED)
    return Provenance(
        title=experiment.run_name,
        subtitle="",
        commands={},
        facts=facts,
        warnings=warnings,
        config=dump_experiment(experiment),
        environment=run.environment,
        history=run.history,
        best_epoch=int(summary.get("best_epoch", 0)),
        image_of=lambda case_id: flair_of(store.load(case_id)),
        case_kind=summary.get("case_kind", "volume"),
    )


def describe_inference(experiment: Experiment) -> dict[str, str]:
    """Return how probabilities and masks are made, by heading, for a reader of the scores."""
    settings, cleaned = experiment.evaluation, experiment.postprocessing
    inside = "within the box around the brain" if settings.brain_box else "over all of the record"
    turned = [f"mirrored along {axis}" for axis in settings.flips]
    turned += [f"turned in the {plane} plane" for plane in settings.rotations]
    changed = [f"{k.replace('_', ' ')}: {_listed(v)}" for k, v in cleaned.model_dump().items() if v]
    model = experiment.model
    prompt = {"Prompt": model.sam.described_prompt} if model.network == "sam" else {}
    return prompt | {
        "Windows": f"overlap {settings.overlap:g}, {settings.weighting} weights, {inside}",
        "Test-time augmentation": ", ".join(turned) or "none",
        "Post-processing": "; ".join(changed) or "none",
    }


def _listed(value: Any) -> str:
    """Write a number, names, or names with their numbers, as in a sentence."""
    if isinstance(value, dict):
        value = tuple(f"{name} {number:g}" for name, number in value.items())
    return ", ".join(value) if isinstance(value, tuple) else f"{value:g}"


def _command(runs: Sequence[Run], options: str) -> str:
    arguments = [*(str(run.folder) for run in runs), *runs[0].overrides]
    return f"kerasseg evaluate {shlex.join(arguments)} {options}"


def _write(
    folder: Path,
    results: Results,
    provenance: Provenance,
    written: Collection[Path],
    save: Collection[Kind],
    setting: str = _SETTING,
) -> Path:
    """Write the page, and remove files of the cases that an earlier evaluation has left."""
    older = remove_older_files(folder, save, written, setting)
    options = "".join(f" --save-{kind}" for kind in save)
    commands = {heading: command + options for heading, command in provenance.commands.items()}
    warnings = [*provenance.warnings, *older]
    provenance = replace(provenance, commands=commands, warnings=warnings)
    return write_evaluation(folder, results, provenance, setting)


def _are_folds(runs: Sequence[Run]) -> bool:
    """Return whether runs differ in nothing but their fold, and validate on different cases."""
    first = runs[0].experiment
    ids = [case_id for run in runs for case_id in run.split["validation"]]
    return len(set(ids)) == len(ids) and not any(
        differences(first, run.experiment, _SAME_IN_FOLDS) for run in runs[1:]
    )


def _provenance_of_folds(runs: Sequence[Run], folds: Sequence[Provenance]) -> Provenance:
    first = folds[0]
    fold_of = {
        case_id: fold
        for run, fold in zip(runs, folds, strict=True)
        for case_id in run.split["validation"]
    }

    def image_of(case_id: str) -> np.ndarray | None:
        return fold_of[case_id].image_of(case_id)

    shared = ["Task", "Network", "Data fingerprint", *describe_inference(runs[0].experiment)]
    shared += ["Changed"] if runs[0].overrides else []
    return replace(
        first,
        title=f"{runs[0].experiment.run.name}: out-of-fold predictions",
        subtitle=f"{len(runs)} folds, each case predicted by the network that had not seen it",
        commands={"Again": _command(runs, "--split validation")},
        facts={
            "Runs": ", ".join(str(run.folder) for run in runs),
            **{heading: first.facts[heading] for heading in shared},
        },
        warnings=list(dict.fromkeys(warning for fold in folds for warning in fold.warnings)),
        left_out={_DAMAGED: dict(ChainMap(*(dict(fold.left_out[_DAMAGED]) for fold in folds)))},
        history=(),
        image_of=image_of,
    )


def evaluate_ensemble(
    runs: Sequence[Run],
    split: str,
    combine: Literal["mean", "vote"],
    output: Path,
    save: Collection[Kind] = (),
) -> Path:
    """Score several runs as one model: folds, seeds and networks, 2-D and 3-D, of one store.

    A case is scored where every run has it on this side of its split, as no network may have been
    trained on it. Returns the page. Raises `UserError` if the runs do not go together.

    Args:
        combine: whether probabilities are averaged, or masks vote.
        save: what is written of every case besides its scores, into folders of these names.
    """
    if len({run.folder.resolve() for run in runs}) < max(2, len(runs)):
        raise UserError("--ensemble: name two or more different run folders.")
    if prompted := [run for run in runs if run.experiment.model.sam.prompt != "none"]:
        raise UserError(
            f"--ensemble: {prompted[0].folder} takes a prompt, which an ensemble has not: leave it "
            "out, or set model.sam.prompt=none."
        )
    case_ids = _unseen_cases(runs, split)
    store = _open_shared_store(runs)
    networks = [run.load_network() for run in runs]
    members = [
        EnsembleRun(str(run.folder), run.experiment, build_predictor(run.experiment, network))
        for run, network in zip(runs, networks, strict=True)
    ]
    ensemble = build_ensemble(members, combine)
    settings = runs[0].experiment.metrics
    files = CaseFiles(output, runs[0].experiment.data, "--output", save)
    results = score_cases(ensemble, store, {split: case_ids}, settings, files)[split]
    how = {"mean": "mean of their probabilities", "vote": "vote of their masks"}[combine]
    warnings = []
    if split == "train":
        warnings.append("The networks were trained on these cases: they say nothing about others.")
    if combine == "vote":
        warnings.append(
            "Probabilities are shares of votes: calibration, ROC and threshold are those of "
            f"{len(runs) + 1} levels."
        )
    options = f"--split {split} --ensemble {combine} -o {output}"
    provenance = Provenance(
        title=f"Ensemble of {len(runs)} runs: {split} cases",
        subtitle=f"Best models of {len(runs)} runs, {how}",
        commands={"Again": _command(runs, options)},
        facts={
            "Runs": ", ".join(str(run.folder.resolve()) for run in runs),
            "Split": f"{split}: the {len(case_ids)} cases that all runs have on this side",
            "Networks": "; ".join(f"{n.name}, {n.count_params():,} parameters" for n in networks),
            **describe_inference(runs[0].experiment),
            "Data fingerprint": runs[0].data_fingerprint,
            "Store": str(store.root),
        },
        warnings=warnings,
        config="\n".join(f"# {r.folder}\n{dump_experiment(r.experiment)}" for r in runs),
        environment=runs[0].environment,
        image_of=lambda case_id: flair_of(store.load(case_id)),
    )
    return _write(output, results, provenance, files.written, save, "--output")


def _unseen_cases(runs: Sequence[Run], split: str) -> list[str]:
    """Return the cases that every run has on this side, in the first one's order."""
    common = set.intersection(*(set(run.case_ids(split)) for run in runs))
    if not common:
        raise UserError(
            f"--ensemble: {', '.join(str(run.folder) for run in runs)} have no {split} case in "
            "common, so that every case was seen by a network in its training. Folds have their "
            "test cases in common (--split test, with split.test above 0); out of fold, kerasseg "
            "evaluate puts them together without --ensemble."
        )
    return [case_id for case_id in runs[0].case_ids(split) if case_id in common]


def _open_shared_store(runs: Sequence[Run]) -> RecordStore:
    stores = [run.open_store() for run in runs]
    for run, store in zip(runs, stores, strict=True):
        made, wanted = (
            (each.manifest.fingerprint, each.manifest.data_fingerprint)
            for each in (store, stores[0])
        )
        if made != wanted:
            raise UserError(
                f"--ensemble: {runs[0].folder} was trained on {stores[0].root}, but "
                f"{run.folder} on {store.root}, which has other cases, modalities, grid or "
                "intensities: "
                "let kerasseg predict RUN RUN… make the segmentations from the scans, and score "
                "these with kerasseg evaluate --pred DIR --truth DIR."
            )
    return stores[0]
