"""The commands on finished runs: `kerasseg evaluate`, `kerasseg compare` and `kerasseg predict`."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kerasseg.cli.options import (
    Combine,
    Labels,
    Layout,
    check_split,
    finish_prediction,
    say_warnings,
    with_tensorflow,
)
from kerasseg.errors import UserError
from kerasseg.files import folder_suffix


def compare(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [SECTION.KEY=VALUE]... RUN",
            help="Run folders. Settings after a run hold for this run alone, those before the "
            "first run for all.",
        ),
    ],
    split: Annotated[
        str, typer.Option("--split", help="Side of the split: test, validation or train.")
    ] = "test",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the output [reports/compare_…]."),
    ] = None,
) -> None:
    """Put finished runs next to each other, with differences.

    A run may be compared with itself under other settings of evaluation or postprocessing.
    """
    check_split(split)
    from kerasseg.config.load import split_settings
    from kerasseg.run import read_evaluated

    _, settings = split_settings(arguments)
    shared: list[str] = []
    members: list[tuple[Path, list[str]]] = []
    for text in arguments:
        if text not in settings:
            members.append((Path(text), list(shared)))
        elif not members:
            shared.append(text)
        elif text.startswith("metrics."):
            raise UserError(
                f"{text}: must hold for all runs, or their scores could not be compared: name it "
                "before the first run."
            )
        else:
            members[-1][1].append(text)
    runs = [read_evaluated(folder, own) for folder, own in members]
    with_tensorflow()
    from kerasseg.evaluation.compare_runs import compare_runs, describe_comparison

    folder = output or Path("reports", f"compare{folder_suffix((split, *arguments))}")
    page = compare_runs(runs, split, folder)
    for line in describe_comparison(_read_json(page.with_name("comparison.json"))):
        typer.echo(line)
    typer.echo(f"Look at {page}")


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _show_evaluation(page: Path) -> None:
    from kerasseg.evaluation.report import describe_scores

    for line in describe_scores(_read_json(page.with_name("summary.json"))):
        typer.echo(line)
    typer.echo(f"Look at {page}")


def evaluate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|SECTION.KEY=VALUE",
            help="Run folders; settings of evaluation, postprocessing and metrics that differ from "
            "those of the runs.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Side of the runs' split: test, validation or train.")
    ] = "test",
    predictions: Annotated[
        Path | None, typer.Option("--pred", help="Folder of NIfTI segmentations, instead of runs.")
    ] = None,
    truths: Annotated[
        Path | None, typer.Option("--truth", help="Folder of true segmentations of the same names.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of scans of the same names, drawn below them."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Ids of NCR,ED,ET in the files, or of the tumour [as BraTS has them], or "
            "brats, brats23, msd; 1,2,3+4: both are ET; 0+4,1,2,3: 4 is background.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of --pred, --ensemble [reports/evaluation_…]."),
    ] = None,
    ensemble: Annotated[
        Literal["mean", "vote"] | None,
        typer.Option(help="Score the runs as one: mean of probabilities, or vote of masks."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Short for metrics.KEY=VALUE.", hidden=True
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune-postprocessing",
            help="First choose the runs' post-processing on their validation cases, and keep it.",
        ),
    ] = False,
    save_labels: Annotated[
        bool,
        typer.Option("--save-labels", help="Write the cases' predicted label maps into labels/."),
    ] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write probabilities/.")
    ] = False,
) -> None:
    """Score whole volumes of finished runs, or anybody's files.

    A run gets a folder evaluation_<split>; with other settings than its own, one named after them.
    """
    from kerasseg.config.load import load_experiment, split_settings
    from kerasseg.run import read_evaluated

    runs, settings = split_settings(arguments or ())
    settings += tuple(f"metrics.{entry}" for entry in metrics or ())
    save: list[Literal["labels", "probabilities"]] = ["labels"] if save_labels else []
    if save_probabilities:
        save.append("probabilities")
    if predictions is not None or truths is not None:
        if predictions is None or truths is None or runs or tune or ensemble:
            raise UserError("Name run folders, or both --pred FOLDER and --truth FOLDER.")
        from kerasseg.evaluation.evaluate_files import evaluate_files

        if save:
            raise UserError("--save-labels and --save-probabilities are for runs, not files.")
        for text in settings:
            if not text.startswith("metrics."):
                raise UserError(f"{text}: files are scored as they are; they take metrics.* only.")
        section = load_experiment(None, settings).metrics
        say_warnings(section.warnings)
        named = (str(predictions), str(truths), *([labels] if labels else []), *settings)
        folder = output or Path("reports", f"evaluation{folder_suffix(named)}")
        _show_evaluation(evaluate_files(predictions, truths, folder, labels, section, images))
        return
    if not runs:
        raise UserError("Nothing to evaluate: name run folders, or --pred and --truth folders.")
    if labels or images:
        raise UserError("--labels and --images are for --pred, not for runs.")
    if output and not ensemble:
        raise UserError("--output is for --pred and --ensemble: a run has evaluation_<split>.")
    check_split(split)
    if tune and any(not text.startswith("metrics.") for text in settings):
        raise UserError(
            "--tune-postprocessing keeps what it finds with the run, so it goes by the settings of "
            f"the run alone: leave {settings[0]} out."
        )
    found = [read_evaluated(folder, settings) for folder in runs]
    say_warnings(dict.fromkeys(w for run in found for w in run.experiment.metrics.warnings))
    with_tensorflow()
    from kerasseg.evaluation.evaluate_runs import evaluate_ensemble, evaluate_runs
    from kerasseg.evaluation.tune_postprocessing import tune_run

    for folder in runs if tune else ():
        tuned = tune_run(folder)
        typer.echo(
            f"{folder}: mean Dice of the validation cases {tuned.before:.4f} as it comes, "
            f"{tuned.after:.4f} with what is now in {tuned.path}"
        )
    if tune:
        found = [read_evaluated(folder, settings) for folder in runs]
    if ensemble:
        named = (split, ensemble, *map(str, runs), *settings)
        folder = output or Path("reports", f"evaluation{folder_suffix(named)}")
        _show_evaluation(evaluate_ensemble(found, split, ensemble, folder, save))
        return
    for page in evaluate_runs(found, split, save):
        _show_evaluation(page)


def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... INPUT [SECTION.KEY=VALUE]",
            help="Run folders; the scans: a case's folder, a folder of cases, or files; overrides.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the predictions.")],
    layout: Annotated[
        Layout | None, typer.Option(help="Layout of the scans, if it is not recognised.")
    ] = None,
    labels: Labels = None,
    combine: Annotated[
        Combine, typer.Option(help="Several runs: mean of probabilities, or vote of masks.")
    ] = "mean",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write probabilities (float32).")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write maps of entropy and variance.")
    ] = False,
    overlays: Annotated[
        int | None,
        typer.Option(min=0, help="How many of the cases to draw. Default: evaluation.overlays."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict finished cases again.")
    ] = False,
) -> None:
    """Segment scans with finished runs, in the scans' own grid.

    Needs nothing but the run folders. Exit code 1 if a case failed.
    """
    from kerasseg.prediction.predict import find_scans, split_arguments
    from kerasseg.prediction.predict import predict as predict_scans
    from kerasseg.prediction.predict_files import OutputOptions

    arguments = split_arguments(words)
    inputs = find_scans(arguments, output, layout)  # refuses now, not after TensorFlow's seconds
    with_tensorflow()
    options = OutputOptions(probabilities, uncertainty, labels, overwrite)
    outcome = predict_scans(
        arguments, output, inputs=inputs, combine=combine, overlays=overlays, options=options
    )
    finish_prediction(outcome, output)
