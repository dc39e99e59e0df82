"""The four tuners: KerasTuner's oracles, kept whole, and mended where they lose trials.

KerasTuner's oracles, kept in one file that is whole after a kill at any moment.
"""

import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from keras_tuner import HyperParameters, Objective, oracles
from keras_tuner.engine.trial import Trial, TrialStatus
from sklearn.exceptions import ConvergenceWarning

from kerasseg.errors import UserError
from kerasseg.files import atomic_write
from kerasseg.private_hooks import OracleHooks
from kerasseg.tuning.search import ORACLE, Search
from kerasseg.tuning.space import hyperparameters
from kerasseg.tuning.trials import BASELINE


class KeptOracle(OracleHooks):
    """Mixed into an oracle of KerasTuner.

    KerasTuner writes the oracle and each trial in files of their own, in place and at different
    moments, so that a kill between them loses a trial or does one twice. Here each call is one
    transaction: it ends with one file written aside and renamed, or has not been. Calls from
    several threads wait for each other.

    To these the baseline is added (a trial of its own, before the others), an end when the time is
    over or too many trials failed in a row, and workers that are lost and found.
    """

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    end_order: list[str]
    start_order: list[str]

    def keep(
        self,
        file: Path,
        *,
        max_trials: int | None,
        baseline: bool,
        seconds: float | None,
        stop_after_failures: int | None,
    ) -> None:
        """Keep the state in `file`, and go on with what it holds; before anything else is called.

        `max_trials` is not told to KerasTuner, whose trial ids would have as many digits as it has.
        Trials that were under way will be given out again, first of all. Raises `UserError` for a
        file that is damaged.
        """
        self._file = file
        self._lock = threading.RLock()
        self._depth, self._changed = 0, False
        self._max_trials = max_trials
        self._baseline = "waiting" if baseline else "none"
        self._baseline_holder: str | None = None
        self._former: dict[str, str] = {}
        self._seconds, self._spent_before, self._began = seconds, 0.0, time.monotonic()
        self._stop_after_failures = stop_after_failures
        self._broken: BaseException | None = None
        if not file.exists():
            return
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            self.trials = {id: Trial.from_state(trial) for id, trial in state["trials"].items()}
            self.set_state(state["oracle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}: cannot be read as the state of a search ({error!r}): use another "
                "search.name, or remove the file: the search begins anew then, and takes over "
                "each trial that comes out with the same values."
            ) from None
        for worker, trial in self.ongoing_trials.items():
            self._former[worker] = trial.trial_id
            self.retry_queue.append(trial.trial_id)
        if self._baseline == "waiting" and state["oracle"].get("baseline_holder"):
            self._former[state["oracle"]["baseline_holder"]] = BASELINE
        self.ongoing_trials = {}

    # What KerasTuner's client and server call.

    def create_trial(self, tuner_id: str) -> Any:
        """The next trial of this worker: what it had before, what another left undone, or a new
        one."""
        with self._transaction():
            if self.why_over() is not None:
                self.give_up(tuner_id)
                return Trial(HyperParameters(), "", TrialStatus.STOPPED)
            if self._baseline == "waiting" and self._baseline_holder in (None, tuner_id):
                self.tuner_ids.add(tuner_id)
                self._baseline_holder = tuner_id
                self._changed = True
                return Trial(HyperParameters(), BASELINE, TrialStatus.RUNNING)
            waiting = tuner_id in self.ongoing_trials or self.retry_queue
            if not waiting and self._max_trials and len(self.trials) >= self._max_trials:
                self.tuner_ids.discard(tuner_id)
                return Trial(HyperParameters(), "", TrialStatus.STOPPED)
            return super().create_trial(tuner_id)  # type: ignore[misc]

    def update_trial(self, trial_id: str, metrics: dict[str, float], step: int = 0) -> Any:
        """Take down a score."""
        with self._transaction():
            if self._is_settled(trial_id):
                return None
            return super().update_trial(trial_id, metrics, step=step)  # type: ignore[misc]

    def end_trial(self, trial: Any) -> None:
        """Take down that a trial is done; a second time it changes nothing.

        One that comes back as INVALID was stopped on its way and will be given out again.
        """
        with self._transaction():
            if trial.status == TrialStatus.INVALID:
                holder = self.holder(trial.trial_id)
                if holder is not None:
                    self.give_up(holder)
                return
            if trial.trial_id == BASELINE:
                self._baseline, self._baseline_holder = "done", None
                self._changed = True
                return
            if self._is_settled(trial.trial_id):
                return
            if trial.trial_id in self.retry_queue:  # of a worker that was given up, but was not
                self.retry_queue.remove(trial.trial_id)
            # gRPC rounds its floats; the values are those that were given out.
            trial.hyperparameters = self.trials[trial.trial_id].hyperparameters
            super().end_trial(trial)  # type: ignore[misc]

    def _is_settled(self, trial_id: str) -> bool:
        """Whether nothing is to be taken down: the baseline, a trial that is done, or one that only
        a worker knows who was there before the folder was removed."""
        return trial_id in self.end_order or trial_id not in self.trials

    def get_trial(self, trial_id: str) -> Any:
        """A trial by its id."""
        if trial_id == BASELINE:
            return Trial(HyperParameters(), BASELINE, TrialStatus.RUNNING)
        return self.trials[trial_id]

    # Workers that come and go.

    def holder(self, trial_id: str) -> str | None:
        """The worker that has this trial."""
        with self._transaction():
            if trial_id == BASELINE:
                return self._baseline_holder
            pairs = self.ongoing_trials.items()
            return next((worker for worker, t in pairs if t.trial_id == trial_id), None)

    def give_up(self, tuner_id: str) -> str | None:
        """Take a worker off the list; the trial that it had, if any, will be given out again."""
        with self._transaction():
            self.tuner_ids.discard(tuner_id)
            if self._baseline_holder == tuner_id:
                self._baseline_holder = None
                return BASELINE
            trial = self.ongoing_trials.pop(tuner_id, None)
            if trial is None:
                return None
            self.retry_queue.append(trial.trial_id)
            self._changed = True
            return str(trial.trial_id)

    def adopt(self, trial_id: str, tuner_id: str) -> bool:
        """Let a worker keep the trial that it has, of which only an earlier chief knew."""
        with self._transaction():
            if tuner_id in self.ongoing_trials:
                return False
            if trial_id == BASELINE and self._baseline == "waiting" and not self._baseline_holder:
                self._baseline_holder = tuner_id
            elif trial_id in self.retry_queue:
                self.retry_queue.remove(trial_id)
                self.ongoing_trials[tuner_id] = self.trials[trial_id]
            else:
                return False
            self.tuner_ids.add(tuner_id)
            self._changed = True
            return True

    def recall(self) -> list[str]:
        """Let the workers of an earlier start keep the trials that they had; their names."""
        return [worker for worker, trial in self._former.items() if self.adopt(trial, worker)]

    def forget_baseline(self) -> None:
        """Give the baseline out once more, if there is to be one."""
        if self._baseline == "done":
            self._baseline = "waiting"

    # How the search stands.

    def why_over(self) -> str | None:
        """Why no further trial is given out though there may be some; None while there are."""
        if self._seconds is not None and self.spent() >= self._seconds:
            return f"search.minutes={self._seconds / 60:g} are over: with more, the search goes on"
        limit = self._stop_after_failures
        if limit is None or len(self.end_order) < limit:
            return None
        last = [self.trials[trial_id] for trial_id in self.end_order[-limit:]]
        if any(trial.status != TrialStatus.FAILED for trial in last):
            return None
        return f"the last {limit} trials failed (search.stop_after_failures={limit})"

    def start_clock(self) -> None:
        """What came before in this process is not of the search's time."""
        self._began = time.monotonic()

    def spent(self) -> float:
        """Seconds of this start and all before."""
        return self._spent_before + time.monotonic() - self._began

    def seconds_left(self) -> float | None:
        """Until the time is over; None without such a limit."""
        return None if self._seconds is None else self._seconds - self.spent()

    # What KerasTuner's oracle writes.

    def get_state(self) -> dict[str, Any]:
        """What the file holds besides the trials."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]
        return state | {
            "baseline": self._baseline == "done",
            "baseline_holder": self._baseline_holder,
            "spent_seconds": self.spent(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""
        super().set_state(state)  # type: ignore[misc]
        self._spent_before = state["spent_seconds"]
        if state["baseline"]:
            self._baseline = "done"

    def save(self) -> None:
        """KerasTuner's call in the middle of a transaction, which is written at its end."""
        self._changed = True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._broken:  # KerasTuner's own lock may still be held by who failed
                raise UserError(f"The search has failed: {self._broken}")
            self._depth += 1
            try:
                yield
                if self._depth == 1 and self._changed:
                    self._write()
                    self._changed = False
            except BaseException as error:
                self._broken = error
                raise
            finally:
                self._depth -= 1

    def _write(self) -> None:
        trials = {trial_id: trial.get_state() for trial_id, trial in self.trials.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._file, "search.root") as temporary:
            temporary.write_text(json.dumps({"oracle": self.get_state(), "trials": trials}))


class RandomOracle(KeptOracle, oracles.RandomSearchOracle):
    """Values drawn at random."""


class BayesianOracle(KeptOracle, oracles.BayesianOptimizationOracle):
    """Values where a Gaussian process hopes for the most.

    What KerasTuner forgets over a stop is kept: the state of its random numbers. And it does not
    try the same values again: where it would, they are drawn.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        with warnings.catch_warnings():
            # That a length scale came to its bound, of which there are few points to tell better.
            warnings.simplefilter("ignore", ConvergenceWarning)
            response: dict[str, Any] = super().populate_space(trial_id)
        if response["values"] is not None and self.was_tried(response["values"]):
            response = self.draw_values()
        return response

    def get_state(self) -> dict[str, Any]:
        """With the state of the random numbers."""
        name, keys, *rest = self.random_state.get_state()
        return super().get_state() | {"random_state": [name, keys.tolist(), *rest]}

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""
        super().set_state(state)
        name, keys, *rest = state["random_state"]
        self.random_state.set_state((name, np.array(keys, np.uint32), *rest))


class GridOracle(KeptOracle, oracles.GridSearchOracle):
    """Every combination.

    What KerasTuner forgets over a stop, after which it would end at once, is kept: which
    combinations have been given out.
    """

    def get_state(self) -> dict[str, Any]:
        """With the list of the combinations."""
        return super().get_state() | self.grid_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """The opposite."""
        super().set_state(state)
        self.set_grid_state(state)


class HyperbandOracle(KeptOracle, oracles.HyperbandOracle):
    """Many for few epochs, the best of them for more (Li et al. 2018, JMLR 18).

    A failed trial counts as one that lost. KerasTuner counts it as one that is not done: of a round
    in which as many fail as may go on, it lets none go on at all. And it writes down the bracket
    that is filled at the moment where the trial may belong to an earlier one.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        response = self._promotion(trial_id) or super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            response["values"]["tuner/bracket"] = self._bracket_of(trial_id)
        return dict(response)

    def _promotion(self, trial_id: str) -> dict[str, Any] | None:
        """The trial that goes on next, if one can be told from those that are done."""
        for bracket in self.open_brackets():
            number, rounds = bracket["bracket_num"], bracket["rounds"]
            if len(rounds[0]) < self.round_size(number, 0):
                return None
            places = self.round_size(number, 0)
            for later in range(1, len(rounds)):
                before = [self.trials[entry["id"]] for entry in rounds[later - 1]]
                size = min(self.round_size(number, later), places)
                if len(before) == places and all(t.trial_id in self.end_order for t in before):
                    size = min(size, sum(t.status == TrialStatus.COMPLETED for t in before))
                chosen = {entry["past_id"] for entry in rounds[later]}
                left = [trial for trial in before if trial.trial_id not in chosen]
                done = [trial for trial in left if trial.trial_id in self.end_order]
                good = [trial for trial in done if trial.status == TrialStatus.COMPLETED]
                losers, places = places - size, size
                if good and len(chosen) < size and len(done) > losers:
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

    def _bracket_of(self, trial_id: str) -> int:
        return next(
            bracket["bracket_num"]
            for bracket in self.brackets
            for entries in bracket["rounds"]
            for entry in entries
            if entry["id"] == trial_id
        )

    @property
    def total(self) -> int:
        """Trials of all rounds, if none fails."""
        return self.hyperband_iterations * sum(
            self.round_size(bracket, number)
            for bracket, rounds in enumerate(self.round_counts())
            for number in range(rounds)
        )


def build_oracle(search: Search) -> Any:
    """The oracle of `search.tuner`, going on with what it had done.

    Raises `UserError` for a state that cannot be read.
    """
    settings = search.settings
    common: dict[str, Any] = {
        "objective": Objective(settings.objective, settings.direction),
        "hyperparameters": hyperparameters(search.space),
        "seed": settings.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": 2**62,  # counted by KeptOracle, which does not raise
    }
    oracle: Any
    match settings.tuner:
        case "random":
            oracle = RandomOracle(**common, max_trials=None)
        case "bayesian":
            oracle = BayesianOracle(**common, max_trials=None)
        case "grid":
            oracle = GridOracle(**common, max_trials=None)
        case "hyperband":
            oracle = HyperbandOracle(
                **common,
                max_epochs=search.epochs,
                factor=settings.factor,
                hyperband_iterations=settings.iterations,
            )
    oracle.verbose = 0
    oracle.keep(
        Path(search.folder) / ORACLE,
        max_trials=settings.max_trials,
        baseline=settings.baseline,
        seconds=None if settings.minutes is None else settings.minutes * 60,
        stop_after_failures=settings.stop_after_failures,
    )
    return oracle
