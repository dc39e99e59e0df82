"""`kerasseg compare RUN RUN…`: runs on the same cases."""

from collections.abc import Sequence
from pathlib import Path

from kerasseg.errors import UserError
from kerasseg.evaluation.comparison import compare
from kerasseg.evaluation.evaluate_runs import evaluate_run
from kerasseg.evaluation.finished_run import FinishedRun, read_finished_run
from kerasseg.evaluation.scores import scored_classes
from kerasseg.evaluation.write_comparison import write_comparison
from kerasseg.settings.metrics import MetricsSection


def compare_runs(
    folders: Sequence[Path],
    split: str,
    output: Path,
    settings: MetricsSection | None = None,
) -> Path:
    """Evaluate two or more runs and write one page about them into `output`.

    The first run is what the others are compared with. Raises `UserError` for fewer than two runs,
    and for runs that have no case or no class in common.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("compare: name two or more different run folders.")
    runs = [read_finished_run(folder) for folder in folders]
    _check_common(runs, split)
    settings = settings or runs[0].experiment.metrics
    found = [evaluate_run(run, split, settings) for run in runs]
    names = _names(runs)
    results = {name: pair[0] for name, pair in zip(names, found, strict=True)}
    comparison = compare({n: r.scores for n, r in results.items()}, settings)
    return write_comparison(comparison, results, found[0][1], runs, split, output, settings)


def _check_common(runs: Sequence[FinishedRun], split: str) -> None:
    ids = [set(run.case_ids(split)) for run in runs]
    if not set.intersection(*ids):
        raise UserError(
            f"compare: {', '.join(str(run.folder) for run in runs)} have no {split} case in "
            "common: they were made with other splits. Name another side with --split, or, of "
            "folds, use kerasseg evaluate, which puts them together."
        )
    targets = [run.experiment.model.target for run in runs]
    if not set.intersection(*(set(scored_classes(target)) for target in targets)):
        raise UserError(
            f"compare: runs of the targets {', '.join(targets)} have no class in common."
        )


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]
