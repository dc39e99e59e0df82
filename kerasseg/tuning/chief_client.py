"""A worker's line to its chief: KerasTuner's client, with an end to its patience."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_client

from kerasseg.errors import UserError
from kerasseg.settings.tuning import SearchSettings
from kerasseg.tuning.stopping import SearchStopped, Stop

ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
WORKER = "KERASTUNER_TUNER_ID"
_FIRST_SECONDS = 3600.0
"""A chief that converts the scans does not answer yet."""
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class ChiefClient:
    """What a worker asks of an oracle, asked of the chief at `address`, "host:port".

    A call that is not answered is made again, which changes nothing where it was heard: a chief may
    be killed and started again at any moment. Every call raises `UserError` if there is no answer
    for `search.chief_timeout`, the first one after an hour, and `SearchStopped` after a signal.
    """

    def __init__(self, address: str, settings: SearchSettings, stop: Stop) -> None:
        self.address, self.settings, self.stop = address, settings, stop
        host, _, port = address.rpartition(":")
        for name, value in zip((*ADDRESS, WORKER), (host, port, ""), strict=True):
            os.environ[name] = value  # where KerasTuner's client looks
        oracle_client.TIMEOUT = _ATTEMPT_SECONDS
        self._client = oracle_client.OracleClient(None)
        # By default it looks for a chief that is gone only every two minutes.
        options = [("grpc.max_reconnect_backoff_ms", 1000)]
        channel = grpc.insecure_channel(address, options)
        self._client.stub = protos.get_service_grpc().OracleStub(channel)
        self._patience, self._away = _FIRST_SECONDS, False

    def create_trial(self, tuner_id: str) -> Any:
        """The next trial."""
        return self._ask(lambda: self._client.create_trial(tuner_id))

    def update_trial(self, trial_id: str, metrics: dict[str, float]) -> Any:
        """Report a score."""
        return self._ask(lambda: self._client.update_trial(trial_id, metrics))

    def end_trial(self, trial: Any) -> None:
        """Report that a trial is done, or give it back."""
        self._ask(lambda: self._client.end_trial(trial))

    def is_held(self, trial_id: str, worker: str) -> bool:
        """Tell the chief that a worker lives; whether the trial is still its own."""
        try:
            self._ask(lambda: self._client.get_trial(f"{trial_id}@{worker}"))
        except NotOurs:
            return False
        return True

    def _ask(self, call: Callable[[], Any]) -> Any:
        end = time.monotonic() + self._patience
        while True:
            try:
                answer = call()
            except grpc.RpcError as error:
                self._check(error, over=time.monotonic() >= end)
                time.sleep(_PAUSE_SECONDS)
                continue
            self._patience = self.settings.chief_timeout
            self._say(away=False)
            return answer

    def _check(self, error: Any, over: bool) -> None:
        """Return if the chief may answer later."""
        code = error.code()
        if code == grpc.StatusCode.FAILED_PRECONDITION:
            raise NotOurs(error.details()) from None
        if code == grpc.StatusCode.INTERNAL:
            raise UserError(f"{self.address}: {error.details()}") from None
        self.stop.raise_if_asked()
        if over or self.stop.all or code not in _AWAY:
            raise UserError(
                f"{self.address}: the chief has not answered for {self._patience:g} seconds "
                f"(search.chief_timeout; {code.name}): it has ended, or cannot be reached. What "
                "was trained is kept: start the chief and the workers again to go on."
            ) from None
        self._say(away=True)

    def _say(self, away: bool) -> None:
        if away != self._away:
            waiting = f"does not answer, and is waited for up to {self._patience:g} seconds"
            words = waiting if away else "answers"
            print(f"Worker     the chief at {self.address} {words}", flush=True)
        self._away = away


class NotOurs(UserError):
    """The trial was given to another worker."""


class SignsOfLife:
    """Used as a context around a trial: tells the chief every few seconds that the worker lives.

    Sets `stop` when the chief is gone, or has given the trial to another; `error` says which.
    """

    def __init__(
        self, client: ChiefClient, trial_id: str, worker: str, stop: threading.Event
    ) -> None:
        self.client, self.trial_id, self.worker, self.stop = client, trial_id, worker, stop
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "SignsOfLife":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _tell(self) -> None:
        while not self._over.wait(min(self.client.settings.worker_timeout / 4, 30.0)):
            try:
                if self.client.is_held(self.trial_id, self.worker):
                    continue
                self.error = NotOurs(f"trial {self.trial_id} was given to another worker")
            except (UserError, SearchStopped) as error:
                self.error = error
            if not self._over.is_set():
                self.stop.set()
            return
