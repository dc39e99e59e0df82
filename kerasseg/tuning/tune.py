"""A whole search: on this machine, or as the chief of several."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kerasseg.records.split import open_split
from kerasseg.records.store import open_store
from kerasseg.tuning.belongs import check_belongs, write_search
from kerasseg.tuning.chief import serve
from kerasseg.tuning.conclude import conclude
from kerasseg.tuning.execution import run_in_process
from kerasseg.tuning.gpus import places
from kerasseg.tuning.lock import held
from kerasseg.tuning.oracles import build_oracle
from kerasseg.tuning.progress import SearchProgress
from kerasseg.tuning.record import TrialRecord, read_records
from kerasseg.tuning.restore_records import restore_records
from kerasseg.tuning.run_trial import RunJob, TrialRunner
from kerasseg.tuning.search import Search
from kerasseg.tuning.stopping import Stop, stopping
from kerasseg.tuning.tell_tensorboard import tell_how_it_went, tell_what_is_searched
from kerasseg.tuning.work import work

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
    with held(search.folder / ".lock", _LOCKED):
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
