"""A worker's line to its chief: KerasTuner's client, with an end to its patience."""

import os
import threading
from collections.abc import Callable
from typing import Any

import grpc
from keras_tuner.src.distribute import oracle_client

from kerasseg.errors import UserError

ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
WORKER = "KERASTUNER_TUNER_ID"


_FIRST_SECONDS = 3600.0
"""A chief that converts the scans does not answer yet."""


class ChiefClient:
    """What a worker asks of an oracle, asked of the chief at `address`, "host:port".

    Every call raises `UserError` if the chief does not answer for `timeout` seconds, the first one
    after an hour.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address, self.timeout = address, timeout
        host, _, port = address.rpartition(":")
        for name, value in zip((*ADDRESS, WORKER), (host, port, ""), strict=True):
            os.environ[name] = value  # where KerasTuner's client looks
        oracle_client.TIMEOUT = max(timeout, _FIRST_SECONDS)
        self._client = oracle_client.OracleClient(None)

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
        try:
            answer = call()
            oracle_client.TIMEOUT = self.timeout
            return answer
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.FAILED_PRECONDITION:
                raise NotOurs(error.details()) from None
            if code == grpc.StatusCode.INTERNAL:
                raise UserError(f"{self.address}: {error.details()}") from None
            raise UserError(
                f"{self.address}: the chief has not answered for {self.timeout:g} seconds "
                f"(search.worker_timeout; {code.name}): it has ended, or cannot be reached. What "
                "was trained is kept: start the chief and the workers again to go on."
            ) from None


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
        self.error: UserError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "SignsOfLife":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _tell(self) -> None:
        while not self._over.wait(min(self.client.timeout / 4, 30.0)):
            try:
                if self.client.is_held(self.trial_id, self.worker):
                    continue
                self.error = NotOurs(f"trial {self.trial_id} was given to another worker")
            except UserError as error:
                self.error = error
            if not self._over.is_set():
                self.stop.set()
            return
