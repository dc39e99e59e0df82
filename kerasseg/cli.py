"""`kerasseg <verb>`. TensorFlow is imported inside a verb only, so help answers at once."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console

from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.config import Experiment
    from kerasseg.forecast import Share
    from kerasseg.training.devices import Devices

Result = TypeVar("Result")

app = typer.Typer(
    name="kerasseg",
    help="Segment brain tumours in MRI: from raw scans to whole-volume segmentations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bench = typer.Typer(help="Measure parts of kerasseg on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of the experiment.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Overrides.")
]
Layout = Literal["brats_nifti", "nnunet", "msd", "nifti", "brats_h5", "lgg", "image_pairs"]
Labels = Literal["brats", "brats23", "msd"]
Combine = Literal["mean", "vote"]
USER_MISTAKE = 2
"""Exit code of everything the user can mend."""
FOUND_ERRORS = 1
"""Exit code of `verify` when a case has an error, and of `predict` when one failed."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
TERMINATED = 143
"""Exit code after SIGTERM."""


Fold = Annotated[
    int | None,
    typer.Option("--fold", help="Validate on this part of split.folds; train on the others."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for what is written [reports/<run.name>]."),
]


@app.command()
def train(
    overrides: Overrides = None,
    config: ConfigOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this name.")
    ] = False,
    fold: Fold = None,
) -> None:
    """Convert the scans if needed, train, evaluate whole volumes, write a run folder.

    Without --config: the demo on generated phantoms.
    """
    experiment = _experiment(config, overrides)
    if fold is not None:
        # A split file may have folds of its own; everything else is cut into split.folds.
        method = "file" if experiment.split.method == "file" else "kfold"
        chosen = [f"split.method={method}", f"split.fold={fold}"]
        experiment = _experiment(config, [*(overrides or ()), *chosen])

    def choose() -> "Devices":
        from kerasseg.training.devices import choose_devices

        return choose_devices(experiment.training)

    devices = _start_tensorflow(choose)
    from kerasseg.experiment import run_experiment

    try:
        run_experiment(experiment, resume=resume, devices=devices)
    except KeyboardInterrupt as stop:
        saved = "After the batch in progress; --resume goes on there."
        number = getattr(stop, "number", None)
        words = saved if number else "If an epoch was finished, --resume goes on after it."
        print(f"\nStopped. {words}", file=sys.stderr)
        raise typer.Exit(TERMINATED if number == signal.SIGTERM else INTERRUPTED) from None


@app.command()
def convert(
    overrides: Overrides = None,
    config: ConfigOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Convert every case anew, in the store's place.")
    ] = False,
) -> None:
    """Convert the scans to a record store, or bring the one there is up to date.

    A conversion that was stopped goes on. Only new and changed cases are converted.
    """
    from kerasseg.records.store import replace_store, update_store

    experiment = _experiment(config, overrides)
    try:
        store = replace_store(experiment) if overwrite else update_store(experiment)
    except KeyboardInterrupt:
        print("\nStopped. kerasseg convert goes on after the last whole shard.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    size = sum(store.manifest.shards.values()) / 1e6
    typer.echo(f"{store.root}: {len(store.rows)} cases, {size:.1f} MB.")
    for case in store.manifest.skipped:
        typer.echo(f"left out: {case.case_id}: {case.reason}")


@app.command()
def predict(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... INPUT [SECTION.KEY=VALUE]...",
            help="Run folders; the scans: a case's folder, a folder of cases, or files; overrides.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the predictions.")],
    layout: Annotated[
        Layout | None,
        typer.Option(help="How the scans are laid out, if not as they look."),
    ] = None,
    labels: Annotated[
        Labels | None,
        typer.Option(
            help="Ids in the labels: brats NCR 1, ED 2, ET 4; brats23 1, 2, 3; msd 2, 1, 3. "
            "Default: those of the run's data set, or of the scans'."
        ),
    ] = None,
    combine: Annotated[
        Combine, typer.Option(help="Several runs: mean of probabilities, or vote of masks.")
    ] = "mean",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write them, too, float32, a file per channel.")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write maps of entropy and variance, too.")
    ] = False,
    overlays: Annotated[
        int | None,
        typer.Option(min=0, help="How many of the cases to draw. Default: evaluation.overlays."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict finished cases anew.")
    ] = False,
) -> None:
    """Segment scans with finished runs; labels come out in the scans' own grid.

    Needs nothing but the run folders. Exit code 1 if a case failed.
    """
    from kerasseg.prediction.arguments import split_arguments

    arguments = split_arguments(words)
    _start_tensorflow()
    from kerasseg.prediction.predict import predict as predict_scans
    from kerasseg.prediction.predict_files import Wanted
    from kerasseg.prediction.show_outcome import show_outcome

    wanted = Wanted(probabilities, uncertainty, labels, overwrite)
    try:
        outcome = predict_scans(
            arguments, output, combine=combine, layout=layout, overlays=overlays, wanted=wanted
        )
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on after the finished cases.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    show_outcome(outcome, output, Console())
    if outcome.stopped:
        raise UserError(f"{outcome.stopped} Finished cases are whole; the same command goes on.")
    if outcome.failed:
        raise typer.Exit(FOUND_ERRORS)


@app.command()
def verify(
    overrides: Overrides = None,
    config: ConfigOption = None,
    records: Annotated[
        bool, typer.Option("--records", help="Check the converted store instead of the raw files.")
    ] = False,
    output: OutputOption = None,
) -> None:
    """Check every case before any hour is spent on it; exit code 1 if there is an error."""
    from kerasseg.verification.records import verify_records
    from kerasseg.verification.report_json import write_json
    from kerasseg.verification.table import show
    from kerasseg.verification.verify import verify as verify_cases

    experiment = _experiment(config, overrides)
    result = verify_records(experiment) if records else verify_cases(experiment)
    show(result, Console())
    path = _output(experiment, output) / ("verify_records.json" if records else "verify.json")
    write_json(result, path)
    typer.echo(f"Written to {path}")
    if not result.ok:
        raise typer.Exit(FOUND_ERRORS)


@app.command()
def explore(
    overrides: Overrides = None, config: ConfigOption = None, output: OutputOption = None
) -> None:
    """Draw what is in the data: sizes, places, intensities, examples, on one page."""
    from kerasseg.exploration.explore import explore as explore_cases

    experiment = _experiment(config, overrides)
    page = explore_cases(experiment, _output(experiment, output) / "explore")
    typer.echo(f"Look at {page}")


@app.command()
def show_batch(
    overrides: Overrides = None,
    config: ConfigOption = None,
    examples: Annotated[int, typer.Option(min=1, max=64, help="Patches, a row each.")] = 6,
    epoch: Annotated[int, typer.Option(min=1, help="The epoch they are of.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Instead of run.seed.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Draw training patches as they are cut and as they are augmented, with their labels."""
    experiment = _experiment(config, overrides)
    _start_tensorflow()
    from kerasseg.show_batch import show_batch as show_patches

    path = _output(experiment, output) / "show_batch.png"
    show_patches(experiment, path, examples=examples, epoch=epoch, seed=seed)
    typer.echo(f"Look at {path}")


@app.command()
def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders.")
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
            "--labels", help="Ids of NCR,ED,ET in the files, or of the tumour [as BraTS has them]."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Of --pred: the folder [evaluation].")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of section metrics: tolerance=2."),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune-postprocessing",
            help="First choose the runs' post-processing on their validation cases, and keep it.",
        ),
    ] = False,
) -> None:
    """Score whole volumes: of finished runs, or anybody's NIfTI files; a page of figures.

    A run gets a folder evaluation_<split>.
    """
    from kerasseg.config_file import load_experiment

    changed = [f"metrics.{entry}" for entry in metrics or ()]
    if predictions is not None or truths is not None:
        if predictions is None or truths is None or runs or tune:
            raise UserError("Name run folders, or both --pred FOLDER and --truth FOLDER.")
        from kerasseg.evaluation.evaluate_files import evaluate_files

        section = load_experiment(None, changed).metrics
        folder = output or Path("evaluation")
        page = evaluate_files(predictions, truths, folder, labels, section, images)
        typer.echo(f"Look at {page}")
        return
    if not runs:
        raise UserError("Nothing to evaluate: name run folders, or --pred and --truth folders.")
    if labels or output or images:
        raise UserError("--labels, --images and --output are for --pred, not for runs.")
    _check_split(split)
    settings = load_experiment(None, changed).metrics if changed else None
    _start_tensorflow()
    from kerasseg.evaluation.evaluate_runs import evaluate_runs
    from kerasseg.evaluation.tune_run import tune_run

    for run in runs if tune else ():
        tuned = tune_run(run)
        typer.echo(
            f"{run}: mean Dice of the validation cases {tuned.before:.4f} as it comes, "
            f"{tuned.after:.4f} with what is now in {tuned.path}"
        )
    for page in evaluate_runs(runs, split, settings):
        typer.echo(f"Look at {page}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders.")],
    split: Annotated[
        str, typer.Option("--split", help="Side of the split: test, validation or train.")
    ] = "test",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what is written.")
    ] = Path("reports/compare"),
) -> None:
    """Put finished runs next to each other: means, paired differences, the same slices."""
    _check_split(split)
    _start_tensorflow()
    from kerasseg.evaluation.compare_runs import compare_runs

    typer.echo(f"Look at {compare_runs(runs, split, output)}")


@app.command(name="config")
def show_config(
    overrides: Overrides = None,
    config: ConfigOption = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON schema of a config file instead.")
    ] = False,
) -> None:
    """Write the resolved experiment as YAML, every default filled in."""
    from kerasseg.config_file import dump_experiment, load_experiment
    from kerasseg.config_schema import json_schema

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
    else:
        typer.echo(dump_experiment(load_experiment(config, overrides or ())), nl=False)


@app.command()
def doctor(overrides: Overrides = None, config: ConfigOption = None) -> None:
    """Say what this machine offers, and what is wrong with it.

    With --config also what a run takes: memory by estimate, time by a few measured batches.
    """
    experiment = _experiment(config, overrides) if config or overrides else None

    def choose() -> "Share | None":
        from kerasseg.forecast import share_of_this_machine

        return share_of_this_machine(experiment) if experiment else None

    share = _start_tensorflow(choose)
    from kerasseg.doctor import examine

    examine()
    if experiment and share:
        from kerasseg.forecast import forecast

        typer.echo(f"\nThis run: {config or 'the demo'}")
        forecast(experiment, share)


@bench.command(name="data")
def bench_data(
    overrides: Overrides = None,
    config: ConfigOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long the pipeline is run.")
    ] = 10.0,
) -> None:
    """Measure the input pipeline: patches a second, its slowest stage, what would help."""
    experiment = _experiment(config, overrides)
    _start_tensorflow()
    from kerasseg.bench_data import bench_data as measure

    measure(experiment, seconds)


def _check_split(split: str) -> None:
    if split not in ("test", "validation", "train"):
        raise UserError(f"--split {split}: expected test, validation or train.")


def _experiment(config: Path | None, overrides: list[str] | None) -> "Experiment":
    """The experiment of a config file, or of the demo."""
    from kerasseg.config_file import DEMO_CONFIG, load_experiment

    return load_experiment(config or DEMO_CONFIG, overrides or ())


def _output(experiment: "Experiment", output: Path | None) -> Path:
    """The folder for what a verb writes, made if it is missing."""
    folder = output or Path("reports") / experiment.run.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    """Entry point of `kerasseg`."""
    _run(app)


def train_main() -> None:
    """Entry point of `train.py`: `kerasseg train` with the same arguments."""
    _run(lambda: app(["train", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}"))


def _start_tensorflow(prepare: Callable[[], Result] | None = None) -> Result | None:
    """Start TensorFlow, if Keras is to run on it at all; `prepare` comes before all else."""
    from kerasseg.start_tensorflow import start_tensorflow

    backend = os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend} is set in your environment, but kerasseg trains on "
            "TensorFlow: unset it, or set KERAS_BACKEND=tensorflow."
        )
    return start_tensorflow(prepare)


def _run(program: Callable[[], object]) -> None:
    try:
        program()
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(
            f"{error.filename}: {error.strerror}: change its permissions, or name another path."
        )


def _refuse(message: str) -> None:
    sys.stdout.flush()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(USER_MISTAKE)


if __name__ == "__main__":
    main()
