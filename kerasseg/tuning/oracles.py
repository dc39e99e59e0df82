"""The four tuners: KerasTuner's oracles, made resumable and mended where they lose trials."""

import json
import math
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from keras_tuner import Objective, Oracle, oracles
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from kerasseg.errors import UserError
from kerasseg.files import write_text
from kerasseg.private_hooks import OracleHooks
from kerasseg.tuning.search import ORACLE_FILE, Search
from kerasseg.tuning.space import combinations, hyperparameters, tuner_value
from kerasseg.tuning.trials import BASELINE, NextTrial


def build_oracle(search: Search) -> "ResumableOracle":
    """Return the oracle of `search.tuner`, with the state that an earlier start left.

    Raises `UserError` for a state that cannot be read.
    """
    return _ORACLES[search.settings.tuner](search)


class ResumableOracle(OracleHooks, Oracle):
    """Makes an oracle of KerasTuner resumable; an oracle names it before KerasTuner's class.

    KerasTuner writes the oracle and each trial into files of their own, in place and at different
    moments, so that a kill between them loses a trial or runs it twice. Here giving out a trial and
    recording its end are transactions: each ends with the whole state in one file, written aside
    and renamed, or it has not been. Calls from several threads wait for each other.

    It adds the baseline, which is a trial before the others; an end when the time is over or too
    many trials failed in a row; and workers that are lost and come back.

    A trial that no worker has, because it was stopped or its worker is gone, waits: it is given out
    before any new one.
    """

    ongoing_trials: dict[str, Trial]

    def __init__(self, search: Search, **options: Any) -> None:
        settings = search.settings
        super().__init__(
            objective=Objective(settings.objective, settings.direction),
            hyperparameters=hyperparameters(search.space),
            seed=settings.seed + 1,  # KerasTuner takes 0 for none.
            max_consecutive_failed_trials=2**62,  # KerasTuner would raise; see why_ended.
            **options,
        )
        self.verbose = 0
        # Counted here, as KerasTuner's trial ids have as many digits as its limit.
        self.max_trials = None
        self._search = search
        self._file = search.folder / ORACLE_FILE
        self._lock = threading.RLock()
        self._depth, self._changed = 0, False
        self._failure: BaseException | None = None
        self._baseline_done = False
        self._baseline_worker: str | None = None
        self._waiting: list[str] = []
        self._earlier_workers: dict[str, str] = {}
        """Worker -> trial that it had when the state was written."""
        self._earlier_seconds, self._started = 0.0, time.monotonic()
        if self._file.exists():
            self._read_state()

    def _read_state(self) -> None:
        try:
            state = json.loads(self._file.read_text(encoding="utf-8"))
            self.trials = {id: Trial.from_state(trial) for id, trial in state["trials"].items()}
            self.set_state(state["oracle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self._file}: cannot be read as the state of a search ({error!r}): use another "
                "search.name, or remove the file: the search begins anew then, and takes over "
                "each trial that comes out with the same values."
            ) from None
        for worker, trial in self.ongoing_trials.items():
            self._earlier_workers[worker] = trial.trial_id
            self._waiting.append(trial.trial_id)
        if self._baseline_waits and state["oracle"].get("baseline_holder"):
            self._earlier_workers[state["oracle"]["baseline_holder"]] = BASELINE
        self.ongoing_trials = {}

    # Giving out trials.

    def next_trial(self, worker: str) -> NextTrial:
        """Return the trial that this worker has already, one that waits, or a new one."""
        with self._transaction():
            seconds = self.seconds_left()
            if self.why_ended() is not None:
                self.release(worker)
                return NextTrial("STOPPED")
            if self._baseline_waits and self._baseline_worker in (None, worker):
                self._baseline_worker, self._changed = worker, True
                return NextTrial("RUNNING", BASELINE, {}, seconds)
            if worker not in self.ongoing_trials and self._waiting:
                self.ongoing_trials[worker] = self.trials[self._waiting.pop(0)]
                self._changed = True
            limit = self._search.settings.max_trials
            if worker not in self.ongoing_trials and limit and len(self.trials) >= limit:
                return NextTrial("STOPPED")
            trial = self.create_trial(worker)
            return NextTrial(trial.status, trial.trial_id, trial.hyperparameters.values, seconds)

    def finish_trial(
        self,
        trial_id: str,
        worker: str,
        status: str,
        score: float | None = None,
        reason: str | None = None,
    ) -> None:
        """Record the end of a trial; a second time changes nothing.

        Args:
            status: completed, failed, or stopped: then the trial waits for another worker.
            score: of a completed trial.
        """
        with self._transaction():
            if status == "stopped":
                if self.reclaim(trial_id, worker):
                    self.release(worker)
            elif trial_id == BASELINE:
                self._baseline_done, self._baseline_worker = True, None
                self._changed = True
            # A worker may also know a trial of a search whose folder was removed meanwhile.
            elif trial_id in self.trials and trial_id not in self.end_order:
                if trial_id in self._waiting:  # Its worker was given up too early.
                    self._waiting.remove(trial_id)
                trial = self.trials[trial_id]
                if status == "completed":
                    self.update_trial(trial_id, {self.objective.name: score})
                    trial.status = TrialStatus.COMPLETED
                else:
                    trial.status, trial.message = TrialStatus.FAILED, reason
                self.end_trial(trial)

    def release(self, worker: str) -> str | None:
        """Let the trial of a worker, if it has one, wait for another; return the trial's id."""
        with self._transaction():
            if self._baseline_worker == worker:
                self._baseline_worker = None
                return BASELINE
            trial = self.ongoing_trials.pop(worker, None)
            if trial is None:
                return None
            self._waiting.append(trial.trial_id)
            self._changed = True
            return str(trial.trial_id)

    def reclaim(self, trial_id: str, worker: str) -> bool:
        """Return whether a trial is this worker's, which gets it back if nobody else has it."""
        with self._transaction():
            if worker in self.ongoing_trials:
                return bool(self.ongoing_trials[worker].trial_id == trial_id)
            free = self._baseline_waits and self._baseline_worker in (None, worker)
            if trial_id == BASELINE and free:
                self._baseline_worker = worker
            elif trial_id in self._waiting:
                self._waiting.remove(trial_id)
                self.ongoing_trials[worker] = self.trials[trial_id]
            else:
                return False
            self._changed = True
            return True

    def reclaim_all(self) -> list[str]:
        """Give the workers of an earlier chief the trials that they had; return their names."""
        earlier = self._earlier_workers.items()
        return [worker for worker, trial_id in earlier if self.reclaim(trial_id, worker)]

    def repeat_baseline(self) -> None:
        """Run the baseline once more."""
        self._baseline_done = False

    @property
    def _baseline_waits(self) -> bool:
        return self._search.settings.baseline and not self._baseline_done

    # How the search stands.

    @property
    def total(self) -> int | None:
        """The number of trials without the baseline, None where it is not known."""
        return self._search.settings.max_trials

    def why_ended(self) -> str | None:
        """Return why the search ends though there may be more trials; None if it does not."""
        seconds, limit = self.seconds_left(), self._search.settings.stop_after_failures
        if seconds is not None and seconds <= 0:
            minutes = self._search.settings.minutes
            return f"search.minutes={minutes:g} are over: with more, the search goes on"
        if limit is None or len(self.end_order) < limit:
            return None
        last = [self.trials[trial_id] for trial_id in self.end_order[-limit:]]
        if any(trial.status != TrialStatus.FAILED for trial in last):
            return None
        return f"the last {limit} trials failed (search.stop_after_failures={limit})"

    def start_clock(self) -> None:
        """Count the search's time from now: converting the scans is no part of it."""
        self._started = time.monotonic()

    def seconds_left(self) -> float | None:
        """Return the seconds until `search.minutes` are over, None without such a limit."""
        minutes = self._search.settings.minutes
        return None if minutes is None else minutes * 60 - self._seconds_spent()

    def _seconds_spent(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    # Keeping the state.

    def get_state(self) -> dict[str, Any]:
        """Return what the file holds besides the trials."""
        state: dict[str, Any] = super().get_state()
        return state | {
            "retry_queue": self._waiting,
            "baseline": self._baseline_done,
            "baseline_holder": self._baseline_worker,
            "spent_seconds": self._seconds_spent(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` returned."""
        super().set_state(state | {"retry_queue": []})
        self._waiting = state["retry_queue"]
        self._earlier_seconds = state["spent_seconds"]
        self._baseline_done = state["baseline"]

    def save(self) -> None:
        """Note that the state has changed, where KerasTuner would write it."""
        self._changed = True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._failure:  # KerasTuner's own lock may still be held by the call that failed.
                raise UserError(f"The search has failed: {self._failure}")
            self._depth += 1
            try:
                yield
                if self._depth == 1 and self._changed:
                    trials = {
                        trial_id: trial.get_state() for trial_id, trial in self.trials.items()
                    }
                    state = json.dumps({"oracle": self.get_state(), "trials": trials})
                    self._file.parent.mkdir(parents=True, exist_ok=True)
                    write_text(self._file, state, "search.root")
                    self._changed = False
            except BaseException as error:
                self._failure = error
                raise
            finally:
                self._depth -= 1


class RandomOracle(ResumableOracle, oracles.RandomSearchOracle):
    """Draws the values at random."""


class BayesianOracle(ResumableOracle, oracles.BayesianOptimizationOracle):
    """Takes the values where a Gaussian process expects the most.

    The state of the random numbers, which KerasTuner forgets over a stop, is kept. Where KerasTuner
    would try the same values again, they are drawn at random.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            # A length scale at its bound: there are still too few trials to know it better.
            warnings.simplefilter("ignore", ConvergenceWarning)
            response: dict[str, Any] = super().populate_space(trial_id)
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        if response["values"] in tried:
            response = self.draw_values()
        return response

    def get_state(self) -> dict[str, Any]:
        name, keys, *rest = self.random_state.get_state()
        return super().get_state() | {"random_state": [name, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        name, keys, *rest = state["random_state"]
        self.random_state.set_state((name, np.array(keys, np.uint32), *rest))


class GridOracle(ResumableOracle):
    """Takes every combination of the values, in order.

    KerasTuner's own grid search forgets over a stop which combinations it has given out.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        space = self._search.space
        tried = {frozenset(t.hyperparameters.values.items()) for t in self.trials.values()}
        for plain in combinations(space, lambda parameter: parameter.finite or ()):
            values = {p.name: tuner_value(p, plain[p.name]) for p in space if p.name in plain}
            if frozenset(values.items()) not in tried:
                return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.STOPPED, "values": None}


class HyperbandOracle(ResumableOracle, oracles.HyperbandOracle):
    """Trains many trials for few epochs and the best of them for more (Li et al. 2018, JMLR 18).

    A failed trial counts as one that lost. To KerasTuner it is one that is not done: where as many
    trials of a round fail as may go on, it lets none go on at all. KerasTuner also writes down the
    bracket that is being filled, though the trial may belong to an earlier one.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(
            search,
            max_epochs=search.epochs,
            factor=search.settings.factor,
            hyperband_iterations=search.settings.iterations,
        )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        response = self._promote(trial_id) or super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            response["values"]["tuner/bracket"] = next(
                bracket["bracket_num"]
                for bracket in self.brackets
                for entries in bracket["rounds"]
                if trial_id in [entry["id"] for entry in entries]
            )
        return dict(response)

    def _promote(self, trial_id: str) -> dict[str, Any] | None:
        """Return the values of a trial that goes on, if one of those that are done can be told to
        be among the best of its round."""
        for bracket in self.open_brackets():
            number, rounds = bracket["bracket_num"], bracket["rounds"]
            places = self.round_size(number, 0)  # in the round before
            if len(rounds[0]) < places:
                return None
            for later in range(1, len(rounds)):
                before = [self.trials[entry["id"]] for entry in rounds[later - 1]]
                size = min(self.round_size(number, later), places)
                if len(before) == places and all(t.trial_id in self.end_order for t in before):
                    size = min(size, sum(t.status == TrialStatus.COMPLETED for t in before))
                promoted = {entry["past_id"] for entry in rounds[later]}
                done = [
                    trial
                    for trial in before
                    if trial.trial_id not in promoted and trial.trial_id in self.end_order
                ]
                good = [trial for trial in done if trial.status == TrialStatus.COMPLETED]
                losers, places = places - size, size
                if good and len(promoted) < size and len(done) > losers:
                    sign = -1 if self.objective.direction == "max" else 1
                    best = min(good, key=lambda trial: sign * trial.score)
                    rounds[later].append({"past_id": best.trial_id, "id": trial_id})
                    values = best.hyperparameters.values | {
                        "tuner/trial_id": best.trial_id,
                        "tuner/epochs": self.round_epochs(number, later),
                        "tuner/initial_epoch": self.round_epochs(number, later - 1),
                        "tuner/round": later,
                    }
                    return {"status": TrialStatus.RUNNING, "values": values}
        return None

    @property
    def total(self) -> int:
        """The number of trials in all rounds, if none fails.

        Where the space has fewer combinations than the first rounds of all brackets want, the
        search ends with the last of them, as a round goes on only when the one before is full.
        """
        space, count, left = self._search.space, 0, math.inf
        brackets = [
            [self.round_size(bracket, number) for number in range(rounds)]
            for bracket, rounds in reversed(list(enumerate(self.round_counts())))
        ] * self.hyperband_iterations
        if all(parameter.finite is not None for parameter in space):
            every = combinations(space, lambda parameter: parameter.finite or ())
            left = sum(1 for _ in islice(every, sum(sizes[0] for sizes in brackets)))
        for sizes in brackets:
            count += sum(sizes) if left >= sizes[0] else int(left)
            left -= sizes[0]
            if left < 0:
                break
        return min(count, self._search.settings.max_trials or count)


_ORACLES: dict[str, type[ResumableOracle]] = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "grid": GridOracle,
    "hyperband": HyperbandOracle,
}
