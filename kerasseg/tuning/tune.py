"""A whole search: on this machine, as the chief of several machines, or as one of their workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasseg.errors import UserError
from kerasseg.files import file_lock
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.tuning import trials
from kerasseg.tuning.distributed import Chief, ChiefClient, Heartbeat, TrialReassigned, serve
from kerasseg.tuning.oracles import ResumableOracle, build_oracle
from kerasseg.tuning.output import SearchProgress, write_hparams_config, write_results
from kerasseg.tuning.search import Search, check_folder, write_search_file
from kerasseg.tuning.trial_process import run_in_process
from kerasseg.tuning.workers import assign_gpus, run_in_threads, run_trials, stop_on_signals

_LOCKED = (
    "this search is going on already: wait for it, or use another search.name; further machines "
    "join with --role chief and --role worker"
)


def tune(
    search: Search, *, gpu: int | None = None, run_job: trials.RunJob = run_in_process
) -> Path | None:
    """Search on this machine.

    Returns the path of `best.yaml`, None if no trial was completed. Raises `UserError` for anything
    that the user can mend; `SearchStopped` after Ctrl-C or SIGTERM, when all is saved.

    Args:
        gpu: number of the only GPU to be used.
    """
    gpus = assign_gpus(search.settings.parallel, gpu)
    with open_search(search) as oracle, stop_on_signals(len(gpus)) as stop:
        with SearchProgress(search, oracle.total, trials.read_records(search.folder)) as progress:

            def work(index: int) -> None:
                worker, event = f"tuner{index}", stop.events[index]
                runner = trials.TrialRunner(search, worker, gpus[index], event, run_job)
                run_trials(oracle, worker, runner.run, event, progress.on_trial_end)

            run_in_threads(work, stop)
        stop.raise_if_signalled()
        return write_results(search, oracle.why_ended())


def tune_as_chief(search: Search, address: str) -> Path | None:
    """Give out the trials of a search at `address`, HOST:PORT; returns and raises as `tune`."""
    with open_search(search) as oracle, stop_on_signals() as stop:
        with SearchProgress(search, oracle.total, trials.read_records(search.folder)) as progress:
            serve(Chief(oracle, search, progress.on_trial_end), address, stop.events[0])
        stop.raise_if_signalled()
        return write_results(search, oracle.why_ended())


def tune_as_worker(
    search: Search,
    address: str,
    name: str,
    *,
    gpu: int | None = None,
    run_job: trials.RunJob = run_in_process,
) -> None:
    """Run trials that the chief at `address`, HOST:PORT, gives out, until there are no more.

    Raises `UserError` if the chief is gone or has another search; `SearchStopped` after Ctrl-C or
    SIGTERM.
    """
    gpus = assign_gpus(search.settings.parallel, gpu)
    names = [name if len(gpus) == 1 else f"{name}-{index}" for index in range(len(gpus))]
    print(f"Worker     {', '.join(names)} of the chief at {address}", flush=True)
    with stop_on_signals(len(gpus)) as stop, SearchProgress(search, None, []) as progress:
        client = ChiefClient(address, search.settings, stop)

        def work(index: int) -> None:
            event = stop.events[index]
            runner = trials.TrialRunner(search, names[index], gpus[index], event, run_job)

            def run(trial: trials.NextTrial) -> trials.TrialRecord | None:
                if not check_folder(search):
                    raise UserError(
                        f"{search.folder}: there is no search, but the chief at {address} has one: "
                        "search.root must be a folder that all machines share."
                    )
                with Heartbeat(client, trial.trial_id, names[index], event) as heartbeat:
                    record = runner.run(trial)
                reassigned = isinstance(heartbeat.error, TrialReassigned)
                if reassigned and not stop.all_stopped:
                    event.clear()  # also where the trial was done by then: the worker goes on
                if heartbeat.error is None or record.is_done:
                    return record
                if not reassigned:
                    raise heartbeat.error
                print(f"Worker     {heartbeat.error}", flush=True)
                return None

            run_trials(client, names[index], run, event, progress.show)

        run_in_threads(work, stop)
    stop.raise_if_signalled()
    print("Worker     the chief has no further trials.", flush=True)


@contextmanager
def open_search(search: Search) -> Iterator[ResumableOracle]:
    """Yield the oracle of a search, whose folder is locked and whose scans are converted."""
    lock = search.folder / ".lock"
    with file_lock(lock, "runs this search", "search.root", wait=0, refusal=_LOCKED):
        resumed = check_folder(search)
        oracle = build_oracle(search)
        open_split(open_store(search.base), search.base.split)
        write_search_file(search)
        write_hparams_config(search.folder, search.settings.space, search.settings.objective)
        trials.restore_records(search, oracle)
        done = sum(record.is_done for record in trials.read_records(search.folder))
        going_on = f", goes on after {done} trial(s)" if resumed else ""
        print(f"Search     {search.folder}: {search.settings.tuner}{going_on}", flush=True)
        oracle.start_clock()
        yield oracle
