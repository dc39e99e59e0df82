"""Campaigns: recipes trained on real data, one after the other, resumable, and one table of them.

A recipe is a ready config with other settings. Each recipe, part of the data (a fold, a block) and
seed is one run of `kerasseg train` in OUT/runs; what is finished is not run again, and what was
stopped goes on with --resume. OUT/minutes counts the processor time of each run's process, through
all its stops, and OUT/scores has the Dice of every case that it did not train on. Both also stand
in docs/results/NAME_scores.csv, so that finished rows outlive their runs.
"""

import argparse
import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.campaign_scores import CaseDice, read_scores, write_scores
from benchmarks.lgg_folds import write_split
from kerasseg.files import file_lock, write_csv
from kerasseg.metrics.statistics import bootstrap_mean
from kerasseg.run import read_history

ROOT = Path(__file__).parents[1]
SECONDS = 5.0
"""Between two looks at a running training."""
TRAINER = (sys.executable, "-m", "kerasseg")
SCORER = (sys.executable, "-m", "benchmarks.campaign_scores")


class Recipe(NamedTuple):
    """Settings that are tried.

    Attributes:
        name: Short name, part of the run's.
        about: What is different, for the table.
        settings: Settings over those of the config, the training ones and the others; of a run
            that is scored again also options of the scorer.
        size: Height and width that the pictures are resized to.
        run_of: The recipe whose runs are scored again with `settings`; empty: it is trained.
        averaged_with: Another recipe, whose runs are scored together with those of `run_of`.
    """

    name: str
    about: str
    settings: tuple[str, ...] = ()
    size: int = 128
    run_of: str = ""
    averaged_with: str = ""

    @property
    def trained(self) -> list[str]:
        """The names of the recipes whose runs it needs, the one that is averaged with last."""
        return [self.run_of or self.name, *filter(None, [self.averaged_with])]


class Campaign(NamedTuple):
    """What is trained on what.

    Attributes:
        config: The ready config.
        data: `data.root`.
        out: Folder of the runs.
        recipes: What is tried, in the order of the table.
        sides: Part of the data, a word and a number such as fold0 -> case id -> train, validation
            or test.
        trainer: How kerasseg is started.
        scorer: How a finished run is scored.
    """

    config: str
    data: Path
    out: Path
    recipes: tuple[Recipe, ...]
    sides: Callable[[str], Mapping[str, str]]
    trainer: tuple[str, ...] = TRAINER
    scorer: tuple[str, ...] = SCORER


class Job(NamedTuple):
    """One run, or one run that is scored again."""

    recipe: Recipe
    part: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its scores."""
        return f"{self.recipe.name}_{self.part}_seed{self.seed}"

    @property
    def runs(self) -> list[str]:
        """The names of the run folders, in the order of `Recipe.trained`."""
        return [f"{name}_{self.part}_seed{self.seed}" for name in self.recipe.trained]

    @property
    def run(self) -> str:
        """The name of the first run folder."""
        return self.runs[0]


def train_settings(job: Job, data: Path, out: Path) -> list[str]:
    """Return the settings of a job's training."""
    size = job.recipe.size
    return [
        f"data.root={data}",
        f"data.size=[{size},{size}]",
        f"pipeline.patch_size=[{size},{size}]",
        "split.method=file",
        f"split.file={out / 'splits' / job.part}.csv",
        f"records.root={out / f'store_{size}'}",
        f"run.root={out / 'runs'}",
        f"run.name={job.run}",
        f"run.seed={job.seed}",
        *job.recipe.settings,
    ]


def command_of(campaign: Campaign, job: Job) -> str:
    """Return the command of a job as it stands in the table, for folders DATA and OUT."""
    data, out = Path("DATA"), Path("OUT")
    if job.recipe.run_of:
        words = ["python", "-m", "benchmarks.campaign_scores", *scorer_words(job, data, out)]
    else:
        words = ["kerasseg", "train", "--config", campaign.config]
        words += train_settings(job, data, out)
    return shlex.join(words)


def scorer_words(job: Job, data: Path, out: Path) -> list[str]:
    """Return the words of the scorer of a job's runs."""
    run, *others = (str(out / "runs" / name) for name in job.runs)
    words = [run, str(data), str(out / "scores" / f"{job.name}.csv")]
    words += [f"--with={other}" for other in others]
    return words + [*job.recipe.settings] * bool(job.recipe.run_of)


def run_job(campaign: Campaign, job: Job, say: Callable[[str], None]) -> None:
    """Score what is not scored, after training what is needed for it and not trained.

    Raises:
        subprocess.CalledProcessError: The training or the scoring failed; OUT/logs says why.
    """
    out = campaign.out
    scores = out / "scores" / f"{job.name}.csv"
    if scores.exists():
        return
    for name in ("runs", "scores", "splits", "minutes", "logs"):
        (out / name).mkdir(parents=True, exist_ok=True)
    recipes = {recipe.name: recipe for recipe in campaign.recipes}
    for name in job.recipe.trained:
        _train(campaign, job._replace(recipe=recipes[name]), say)
    say("is scored")
    log = out / "logs" / f"{job.name}.txt"
    _call([*campaign.scorer, *scorer_words(job, campaign.data, out)], log)


def _train(campaign: Campaign, job: Job, say: Callable[[str], None]) -> None:
    out, folder = campaign.out, campaign.out / "runs" / job.run
    log = out / "logs" / f"{job.name}.txt"
    if (folder / "summary.json").exists():
        return
    write_split(campaign.sides(job.part), out / "splits" / f"{job.part}.csv")
    settings = ["--config", f"configs/{campaign.config}.yaml"]
    settings += train_settings(job, campaign.data, out)
    if not (out / f"store_{job.recipe.size}").exists():  # it is not a part of the training
        say("is converted")
        _call([*campaign.trainer, "convert", *settings], log)
    resume = (folder / "config.yaml").exists()
    if not resume:  # never begun, or stopped while its files were written
        shutil.rmtree(folder, ignore_errors=True)
        (out / "minutes" / f"{job.run}.json").unlink(missing_ok=True)
    verb = ["train", "--resume"] if resume else ["train"]
    _count_minutes([*campaign.trainer, *verb, *settings], log, campaign, job, say)


def _call(command: Sequence[str], log: Path) -> None:
    with log.open("ab") as file:
        subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=True)


def _count_minutes(
    command: Sequence[str], log: Path, campaign: Campaign, job: Job, say: Callable[[str], None]
) -> None:
    """Run a training; its processor time is written while it runs, and so outlives any stop."""
    path = campaign.out / "minutes" / f"{job.run}.json"
    before = json.loads(path.read_text()) if path.exists() else 0.0
    waited = _seconds_of_children()
    history = campaign.out / "runs" / job.run / "history.csv"
    with log.open("ab") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    try:
        while child.poll() is None:
            minutes = before + sum(psutil.Process(child.pid).cpu_times()[:4]) / 60
            path.write_text(json.dumps(minutes))
            epochs = len(read_history(history)) if history.exists() else 0
            say(f"epoch {epochs}, {minutes:.0f} processor minutes")
            with suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS)
    finally:
        if child.poll() is None:  # this process is stopped: so is the training, after its batch
            child.terminate()
            child.wait()
        path.write_text(json.dumps(before + (_seconds_of_children() - waited) / 60))
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)


def _seconds_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def keep_scores(campaign: Campaign, path: Path) -> None:
    """Write all finished scores, and the minutes of their runs, into one CSV file."""
    rows: list[tuple[object, ...]] = [("recipe", "part", "seed", "minutes", *CaseDice._fields)]
    for job in finished_jobs(campaign):
        minutes = _minutes(campaign, job)
        for row in read_scores(campaign.out / "scores" / f"{job.name}.csv"):
            dice = (f"{row.dice:.5f}", f"{row.as_buda:.5f}")
            rows.append((job.recipe.name, job.part, job.seed, f"{minutes:.2f}", *row[:2], *dice))
    write_csv(path, rows, "--out")


def restore_scores(campaign: Campaign, path: Path) -> None:
    """Take what `keep_scores` wrote for finished, where a folder of runs does not know better."""
    recipes = {recipe.name: recipe for recipe in campaign.recipes}
    found: dict[Job, list[CaseDice]] = {}
    for name in ("scores", "minutes"):
        (campaign.out / name).mkdir(parents=True, exist_ok=True)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            job = Job(recipes[row["recipe"]], row["part"], int(row["seed"]))
            scores = float(row["dice"]), float(row["as_buda"])
            found.setdefault(job, []).append(CaseDice(row["case_id"], row["side"], *scores))
            minutes = campaign.out / "minutes" / f"{job.run}.json"
            if len(job.runs) == 1 and not minutes.exists():
                minutes.write_text(row["minutes"])
    for job, rows in found.items():
        if not (scores_file := campaign.out / "scores" / f"{job.name}.csv").exists():
            write_scores(scores_file, rows)


def _minutes(campaign: Campaign, job: Job) -> float:
    paths = [campaign.out / "minutes" / f"{run}.json" for run in job.runs]
    return sum(float(path.read_text()) for path in paths)


def finished_jobs(campaign: Campaign) -> list[Job]:
    """Return the finished jobs, in the order of the recipes."""
    jobs = []
    for recipe in campaign.recipes:
        for path in sorted((campaign.out / "scores").glob(f"{recipe.name}_*_seed*.csv")):
            part, seed = path.stem.removeprefix(f"{recipe.name}_").split("_seed")
            if part.rstrip("0123456789").isalpha():  # else of a recipe whose name is longer
                jobs.append(Job(recipe, part, int(seed)))
    return jobs


def finished_rows(campaign: Campaign) -> list[list[Job]]:
    """Return the rows of the table: of each recipe and kind of part the finished jobs.

    The first part stands with all its seeds; if there are more parts, they stand with seed 0.
    """
    rows, kinds = [], defaultdict(list)
    for job in finished_jobs(campaign):
        kinds[job.recipe, job.part.rstrip("0123456789")].append(job)
    for jobs in kinds.values():
        rows.append([job for job in jobs if job.part == jobs[0].part])
        if len({job.part for job in jobs}) > 1:
            rows.append([job for job in jobs if job.seed == 0])
    return rows


def table(campaign: Campaign, title: str, *, volumes: bool = True) -> str:
    """Return the table of all finished runs as Markdown, and below it the command of each row.

    Args:
        campaign: The campaign.
        title: Its heading.
        volumes: Whether cases are volumes, which Buda's way of scoring is for.
    """
    head = ["recipe", "parts", "seeds", "processor minutes a run", "choosing cases, mean"]
    head += ["tested cases", "mean (95 %)", "median", "each seed's mean"]
    head += ["as Buda scored: mean (95 %)", "median"] if volumes else []
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    commands: list[str] = []
    for recipe, jobs in ((jobs[0].recipe, jobs) for jobs in finished_rows(campaign)):
        lines.append(f"| {' | '.join(_cells(campaign, jobs, volumes=volumes))} |")
        if f"{recipe.about}:" not in commands:  # a recipe may have two rows
            commands += [f"{recipe.about}:", "", f"    {command_of(campaign, jobs[0])}", ""]
    return "\n".join([*lines, "", "## Commands", "", *commands]).rstrip() + "\n"


def _cells(campaign: Campaign, jobs: list[Job], *, volumes: bool) -> list[str]:
    scores = {job: read_scores(campaign.out / "scores" / f"{job.name}.csv") for job in jobs}
    rows = [row for found in scores.values() for row in found]
    tested = [row for row in rows if row.side == "test"]
    seeds = sorted({job.seed for job in jobs})
    of_seeds = [
        np.mean(
            [r.dice for job in jobs if job.seed == seed for r in scores[job] if r.side == "test"]
        )
        for seed in seeds
    ]
    dice = _of_cases(tested, "dice")
    minutes = np.mean([_minutes(campaign, job) for job in jobs])
    cells = [
        jobs[0].recipe.about,
        ", ".join(sorted({job.part for job in jobs})),
        ", ".join(map(str, seeds)),
        f"{minutes:.1f}" + (", trained above" if jobs[0].recipe.run_of else ""),
        f"{np.mean([row.dice for row in rows if row.side == 'validation']):.3f}",
        str(len(dice)),
        _mean(dice),
        f"{np.median(dice):.3f}",
        ", ".join(f"{mean:.3f}" for mean in of_seeds),
    ]
    buda = _of_cases(tested, "as_buda")
    return cells + ([_mean(buda), f"{np.median(buda):.3f}"] if volumes else [])


def _of_cases(rows: Iterable[CaseDice], name: str) -> list[float]:
    """Return a score of each case, the mean over its seeds."""
    cases: dict[str, list[float]] = {}
    for row in rows:
        cases.setdefault(row.case_id, []).append(getattr(row, name))
    return [float(np.mean(values)) for values in cases.values()]


def _mean(values: Sequence[float]) -> str:
    found = bootstrap_mean(values, limits=(0.0, 1.0))
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def run_campaign(campaign: Campaign, jobs: Sequence[Job], write_table: Callable[[], None]) -> None:
    """Run jobs in their order, and write the table after each.

    Raises:
        UserError: Another process works in the folder.
        subprocess.CalledProcessError: As in `run_job`.
    """
    campaign.out.mkdir(parents=True, exist_ok=True)
    last = ""

    def say(number: int, job: Job, state: str) -> None:
        nonlocal last
        line = f"{number} of {len(jobs)}  {job.name}: {state}"
        if line != last:
            print(line, file=sys.stderr, flush=True)
        last = line

    lock = campaign.out / "campaign.lock"
    with file_lock(lock, "runs this campaign", "--out", wait=0, refusal="it runs already"):
        for number, job in enumerate(jobs, start=1):
            run_job(campaign, job, partial(say, number, job))
            say(number, job, "is finished")
            write_table()


def folder_of_links(roots: Sequence[Path], folder: Path) -> Path:
    """Make a folder of links to the patients' folders below several roots, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for patient in {path.parent for root in roots for path in root.rglob("*_mask.tif")}:
        link = folder / patient.name
        if not link.exists():
            link.symlink_to(patient.resolve())
    return folder


def run_command(
    words: Sequence[str],
    name: str,
    title: str,
    roots: Sequence[Path],
    parts: Sequence[str],
    make: Callable[[Sequence[Path], Path], Campaign],
    *,
    volumes: bool,
) -> None:
    """Run `python -m benchmarks NAME`: its options, the jobs, the table in benchmarks/.

    Args:
        words: The arguments after the campaign's name.
        name: The campaign's name.
        title: The table's heading.
        roots: Where the data are, if --data does not say it.
        parts: The parts of the data, the first of which is run if --parts does not say it.
        make: Makes the campaign from the folders of the data and that of its runs.
        volumes: As in `table`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=make.__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=list(roots))
    parser.add_argument("--out", type=Path, default=Path("runs") / f"campaign_{name}")
    parser.add_argument("--recipes", nargs="*", help="none: only the table is written")
    parser.add_argument("--parts", nargs="+", default=parts[:1], choices=parts)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args(words)
    missing = [str(root) for root in options.data if not root.is_dir()]
    if missing:
        parser.error(f"--data: {', '.join(missing)} is missing: name the folder of the data")
    campaign = make([root.resolve() for root in options.data], options.out.resolve())
    recipes = {recipe.name: recipe for recipe in campaign.recipes}
    chosen = list(recipes) if options.recipes is None else options.recipes
    if unknown := set(chosen) - set(recipes):
        parser.error(f"--recipes: {', '.join(unknown)}: there are {', '.join(recipes)}")
    # All recipes of a part before the next part: the comparison is whole as early as possible.
    jobs = [
        Job(recipes[recipe], part, seed)
        for seed in options.seeds
        for part in options.parts
        for recipe in chosen
    ]
    path, kept = ROOT / "benchmarks" / f"{name}.md", ROOT / "docs/results" / f"{name}_scores.csv"
    if kept.exists():
        restore_scores(campaign, kept)

    def write_table() -> None:
        path.write_text(table(campaign, title, volumes=volumes), encoding="utf-8")
        keep_scores(campaign, kept)

    write_table()
    if jobs:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        run_campaign(campaign, jobs, write_table)
