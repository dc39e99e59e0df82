"""A search on several machines: the chief gives out trials by gRPC, workers ask for them.

Messages are JSON. There is neither encryption nor a password, so it is for a trusted network.
"""

import json
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import asdict, replace
from inspect import signature
from typing import Any

import grpc

from kerasseg.config.tuning import SearchSettings
from kerasseg.errors import UserError
from kerasseg.tuning.oracles import ResumableOracle
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import NextTrial, TrialRecord, read_record, record_path, trial_number
from kerasseg.tuning.workers import SearchStopped, StopEvents

_SERVICE = "kerasseg.Chief"
_METHODS = ("next_trial", "finish_trial", "keep_alive")
_CHECK_SECONDS = 0.5
"""The chief looks this often for workers that are gone."""


class Chief:
    """Answers the workers of a search, and gives up those that are silent for too long.

    A chief that takes the place of an earlier one counts the workers of that one as its own until
    they have been silent for too long, too.
    """

    def __init__(
        self,
        oracle: ResumableOracle,
        search: Search,
        on_trial_end: Callable[[TrialRecord], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.oracle, self.search = oracle, search
        self.on_trial_end, self.clock = on_trial_end, clock
        self.error: BaseException | None = None
        self.out_of_trials = False
        workers = oracle.reclaim_all()
        if workers:
            print(
                f"Chief      {', '.join(workers)} had trials, which are kept for them", flush=True
            )
        self.last_word = clock()
        self.last_heard = dict.fromkeys(workers, self.last_word)
        self.not_yet_back = set(workers)

    def next_trial(self, worker: str) -> dict[str, Any]:
        """Answer a worker that asks for a trial."""
        self._note(worker)
        trial = self.oracle.next_trial(worker)
        if trial.status == "STOPPED" and self.not_yet_back and not self.oracle.why_ended():
            # Workers that do not come back may leave their trials to this one.
            trial = replace(trial, status="IDLE")
        if trial.status == "STOPPED":
            self.out_of_trials = True
            self.last_heard.pop(worker, None)
        return asdict(trial)

    def finish_trial(
        self, trial_id: str, worker: str, status: str, score: float | None, reason: str | None
    ) -> None:
        """Record the end of a trial."""
        self._note(worker)
        self.oracle.finish_trial(trial_id, worker, status, score, reason)
        path = record_path(self.search.folder, trial_id)
        if path.exists():
            record = read_record(path)
            if record.status != "running":  # Else another worker has begun the trial anew.
                self.on_trial_end(record)

    def keep_alive(self, trial_id: str, worker: str) -> bool:
        """Answer a sign of life; return whether the trial still belongs to this worker."""
        if not self.oracle.reclaim(trial_id, worker):
            return False
        self._note(worker)
        return True

    def check_workers(self) -> bool:
        """Give up workers that are silent for too long; return whether the search is over.

        Raises `UserError` when none is left, or none came.
        """
        timeout, now = self.search.settings.worker_timeout, self.clock()
        self.last_word = max([self.last_word, *self.last_heard.values()])
        for worker, heard in list(self.last_heard.items()):
            if now - heard > timeout:
                self.last_heard.pop(worker, None)
                self.not_yet_back.discard(worker)
                trial_id = self.oracle.release(worker)
                lost = f"; its trial {trial_number(trial_id)} goes to another" if trial_id else ""
                print(
                    f"Worker     {worker} is gone: no word for {timeout:g} seconds{lost}",
                    flush=True,
                )
        if self.out_of_trials and not self.last_heard:
            return True
        if not self.last_heard and now - self.last_word > timeout:
            raise UserError(
                f"No worker has been heard of for {timeout:g} seconds (search.worker_timeout): "
                "the search ends here, and nothing of it is lost. Start the chief and its "
                "workers again to go on."
            )
        return False

    def _note(self, worker: str) -> None:
        self.last_heard[worker] = self.clock()
        self.not_yet_back.discard(worker)


def serve(chief: Chief, address: str, stop: threading.Event) -> None:
    """Give out trials at `address`, HOST:PORT, until the search is over or `stop` is set.

    Raises `UserError` for an address that cannot be listened on, and when no worker is left.
    """

    def handler(method: Callable[..., Any]) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                arguments = json.loads(request)
                signature(method).bind(**arguments)
            except (ValueError, TypeError) as error:  # The sender's fault, not the search's.
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no request of a worker: {error}")
                raise
            try:
                return json.dumps(method(**arguments)).encode()
            except Exception as error:  # Where the oracle fails, so does the search.
                chief.error = error
                context.abort(grpc.StatusCode.INTERNAL, f"the chief has failed: {error}")
                raise

        return grpc.unary_unary_rpc_method_handler(answer)

    # One thread is enough: the oracle answers one call at a time.
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)]
    )
    handlers = {name: handler(getattr(chief, name)) for name in _METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise UserError(
            f"--address {address}: cannot be listened on: another program has that port, or it is "
            "no address of this machine; 0.0.0.0:PORT listens on all of its addresses."
        )
    server.start()
    print(f"Chief      waits for workers at {address}", flush=True)
    try:
        while not stop.wait(_CHECK_SECONDS):
            if chief.error is not None:
                raise chief.error
            if chief.check_workers():
                return
    finally:
        server.stop(grace=1.0).wait()


_FIRST_ANSWER_SECONDS = 3600.0
"""A chief that still converts the scans does not answer yet."""
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_MAY_COME_BACK = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
_REFUSED = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Codes of a chief that has failed, or is of another version."""


class ChiefClient:
    """Asks the chief at `address`, HOST:PORT, what a worker on the same machine asks the oracle.

    A call that is not answered is made again, which changes nothing where it was heard: a chief may
    be killed and started again at any moment. Every call raises `UserError` if there is no answer
    for `search.chief_timeout`, the first one after an hour, and `SearchStopped` after a signal.
    """

    def __init__(self, address: str, settings: SearchSettings, stop: StopEvents) -> None:
        self.address, self.settings, self.stop = address, settings, stop
        # By default gRPC looks for a chief that is gone only every two minutes.
        options = [("grpc.max_reconnect_backoff_ms", 1000)]
        channel = grpc.insecure_channel(address, options)
        self._calls = {name: channel.unary_unary(f"/{_SERVICE}/{name}") for name in _METHODS}
        self._patience, self._is_away = _FIRST_ANSWER_SECONDS, False

    def next_trial(self, worker: str) -> NextTrial:
        """Return the next trial of a worker."""
        return NextTrial(**self._ask("next_trial", worker=worker))

    def finish_trial(
        self, trial_id: str, worker: str, status: str, score: float | None, reason: str | None
    ) -> None:
        """Report the end of a trial."""
        outcome = {"status": status, "score": score, "reason": reason}
        self._ask("finish_trial", trial_id=trial_id, worker=worker, **outcome)

    def keep_alive(self, trial_id: str, worker: str) -> bool:
        """Tell the chief that a worker lives; return whether the trial is still its own."""
        return bool(self._ask("keep_alive", trial_id=trial_id, worker=worker))

    def _ask(self, name: str, **request: Any) -> Any:
        end = time.monotonic() + self._patience
        while True:
            try:
                answer = self._calls[name](
                    json.dumps(request).encode(), timeout=_ATTEMPT_SECONDS, wait_for_ready=True
                )
            except grpc.RpcError as error:
                self._check(error, over=time.monotonic() >= end)
                time.sleep(_PAUSE_SECONDS)
                continue
            self._patience = self.settings.chief_timeout
            self._show(is_away=False)
            return json.loads(answer)

    def _check(self, error: Any, over: bool) -> None:
        """Return if the chief may answer later."""
        code = error.code()
        if code in _REFUSED:
            raise UserError(f"{self.address}: {error.details()}") from None
        self.stop.raise_if_signalled()
        if over or self.stop.all_stopped or code not in _MAY_COME_BACK:
            raise UserError(
                f"{self.address}: the chief has not answered for {self._patience:g} seconds "
                f"(search.chief_timeout; {code.name}): it has ended, or cannot be reached. What "
                "was trained is kept: start the chief and the workers again to go on."
            ) from None
        self._show(is_away=True)

    def _show(self, is_away: bool) -> None:
        if is_away != self._is_away:
            waits = f"does not answer, and is waited for up to {self._patience:g} seconds"
            state = waits if is_away else "answers"
            print(f"Worker     the chief at {self.address} {state}", flush=True)
        self._is_away = is_away


class TrialReassigned(UserError):
    """The chief has given the trial to another worker."""


class Heartbeat:
    """Tells the chief every few seconds that the worker of a trial lives; used as a context.

    Sets `stop` when the chief is gone or has given the trial to another; `error` says which.
    """

    def __init__(
        self, client: ChiefClient, trial_id: str, worker: str, stop: threading.Event
    ) -> None:
        self.client, self.trial_id, self.worker, self.stop = client, trial_id, worker, stop
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(min(self.client.settings.worker_timeout / 4, 30.0)):
            try:
                if self.client.keep_alive(self.trial_id, self.worker):
                    continue
                number = trial_number(self.trial_id)
                self.error = TrialReassigned(f"trial {number} was given to another worker")
            except (UserError, SearchStopped) as error:
                self.error = error
            if not self._over.is_set():
                self.stop.set()
            return
