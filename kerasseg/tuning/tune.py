"""A whole search: on this machine, or as the chief of several.

A worker of a search on several machines.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasseg.errors import UserError
from kerasseg.files import file_lock
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.tuning.distributed import ChiefClient, NotOurs, SignsOfLife, serve
from kerasseg.tuning.oracles import build_oracle
from kerasseg.tuning.output import SearchProgress, conclude
from kerasseg.tuning.search import ORACLE, Search, check_belongs, write_search
from kerasseg.tuning.tensorboard import tell_how_it_went, tell_what_is_searched
from kerasseg.tuning.trial_process import run_in_process
from kerasseg.tuning.trials import RunJob, TrialRecord, TrialRunner, read_records, restore_records
from kerasseg.tuning.work import Stop, places, stopping, work

_LOCKED = (
    "this search is going on already: wait for it, or use another search.name; further machines "
    "join with --role chief and --role worker"
)


def tune(
    search: Search, *, gpu: int | None = None, run_job: RunJob = run_in_process
) -> Path | None:
    """Search on this machine; returns `best.yaml`, None if no trial was completed.

    gpu: the only GPU to be used. run_job: how an execution is run. Raises `UserError` for anything
    the user can mend, and `SearchStopped` after Ctrl-C or SIGTERM, when all is saved.
    """
    settings = search.settings
    seats = places(settings.parallel, gpu)
    with _prepared(search) as oracle, stopping(len(seats)) as stop:
        left = oracle.seconds_left()
        until = None if left is None else time.time() + left
        with _progress(search, oracle) as ended:

            def seat(index: int) -> Callable[[], None]:
                worker, event = f"tuner{index}", stop.events[index]
                runner = TrialRunner(search, worker, seats[index], event, until, run_job)
                return lambda: work(oracle, worker, runner.run, settings.objective, event, ended)

            in_threads([seat(index) for index in range(len(seats))], stop)
        stop.raise_if_asked()
        return conclude(search, oracle.why_over())


def tune_as_chief(search: Search, address: str) -> Path | None:
    """Give out the trials of a search at `address`, "host:port"; returns `best.yaml`.

    Raises as `tune` does.
    """
    with _prepared(search) as oracle, stopping() as stop:
        with _progress(search, oracle) as ended:
            serve(oracle, search, address, stop.events[0], ended)
        stop.raise_if_asked()
        return conclude(search, oracle.why_over())


def in_threads(jobs: Sequence[Callable[[], None]], stop: Stop) -> None:
    """Run all jobs at a time; the failure of one stops the others and is raised."""
    errors: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # with an end, so that signals are seen
    if errors:
        raise errors[0]


@contextmanager
def _prepared(search: Search) -> Iterator[Any]:
    """The oracle of a search whose folder is held, and whose scans are converted and split."""
    lock = search.folder / ".lock"
    with file_lock(lock, "runs this search", "search.root", wait=0, refusal=_LOCKED):
        goes_on = check_belongs(search)
        oracle = build_oracle(search)
        open_split(open_store(search.base), search.base.split)
        write_search(search)
        restore_records(search, oracle)
        done = sum(record.is_done for record in read_records(search.folder))
        words = f", goes on after {done} trial(s)" if goes_on else ""
        print(f"Search     {search.folder}: {search.settings.tuner}{words}", flush=True)
        oracle.start_clock()
        yield oracle


@contextmanager
def _progress(search: Search, oracle: Any) -> Iterator[Callable[[TrialRecord], None]]:
    """What is to be called with every trial that has ended."""
    total = search.settings.max_trials or getattr(oracle, "total", None)
    tell_what_is_searched(search)
    with SearchProgress(search.settings, total, read_records(search.folder)) as progress:

        def ended(record: TrialRecord) -> None:
            tell_how_it_went(search, record)
            progress.ended(record)

        yield ended


def tune_as_worker(
    search: Search,
    address: str,
    name: str,
    *,
    gpu: int | None = None,
    run_job: RunJob = run_in_process,
) -> None:
    """Run trials that the chief at `address`, "host:port", gives out, until there are no more.

    Raises `UserError` if the chief is gone or has another search, and `SearchStopped` after Ctrl-C
    or SIGTERM.
    """
    settings = search.settings
    seats = places(settings.parallel, gpu)
    names = [name if len(seats) == 1 else f"{name}-{index}" for index in range(len(seats))]
    print(f"Worker     {', '.join(names)} of the chief at {address}", flush=True)
    with stopping(len(seats)) as stop, SearchProgress(settings, None, []) as progress:
        client = ChiefClient(address, settings, stop)

        def seat(index: int) -> Callable[[], None]:
            event = stop.events[index]
            runner = TrialRunner(search, names[index], seats[index], event, None, run_job)
            run = _Living(runner, client, stop)
            return lambda: work(
                client, names[index], run, settings.objective, event, progress.ended
            )

        in_threads([seat(index) for index in range(len(seats))], stop)
    stop.raise_if_asked()
    print("Worker     the chief has no further trials.", flush=True)


class _Living:
    """Runs a trial while the chief hears of it."""

    def __init__(self, runner: TrialRunner, client: ChiefClient, stop: Stop) -> None:
        self.runner, self.client, self.stop = runner, client, stop

    def __call__(self, trial_id: str, values: Mapping[str, Any]) -> TrialRecord | None:
        runner = self.runner
        if not check_belongs(runner.search):
            raise UserError(
                f"{runner.search.folder}: there is no search, but the chief at "
                f"{self.client.address} has one: search.root must be a folder that all machines "
                "share."
            )
        runner.until = _until(runner.search)
        with SignsOfLife(self.client, trial_id, runner.worker, runner.stop) as life:
            record = runner.run(trial_id, values)
        if life.error is None or record.is_done:
            return record
        if not isinstance(life.error, NotOurs):
            raise life.error
        print(f"Worker     {life.error}", flush=True)
        if not self.stop.all:
            runner.stop.clear()
        return None


def _until(search: Search) -> float | None:
    """Seconds since 1970 when the time of the search is over, by what the chief wrote last."""
    if search.settings.minutes is None:
        return None
    path = search.folder / ORACLE
    spent = json.loads(path.read_text(encoding="utf-8"))["oracle"]["spent_seconds"]
    return float(path.stat().st_mtime + search.settings.minutes * 60 - spent)
