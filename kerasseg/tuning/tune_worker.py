"""A worker of a search on several machines."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from kerasseg.errors import UserError
from kerasseg.tuning.belongs import check_belongs
from kerasseg.tuning.chief_client import ChiefClient, NotOurs, SignsOfLife
from kerasseg.tuning.execution import run_in_process
from kerasseg.tuning.gpus import places
from kerasseg.tuning.progress import SearchProgress
from kerasseg.tuning.record import TrialRecord
from kerasseg.tuning.run_trial import RunJob, TrialRunner
from kerasseg.tuning.search import Search
from kerasseg.tuning.search_file import ORACLE
from kerasseg.tuning.stopping import Stop, stopping
from kerasseg.tuning.tune import in_threads
from kerasseg.tuning.work import work


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
