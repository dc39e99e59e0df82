"""A worker's line to its chief: KerasTuner's client, with an end to its patience.

The chief of a search on several machines: KerasTuner's service, with an eye on its workers.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus

from kerasseg.config.tuning import SearchSettings
from kerasseg.errors import UserError
from kerasseg.private_hooks import oracle_protocol
from kerasseg.tuning.search import Search
from kerasseg.tuning.trials import TrialRecord, read_record, record_path
from kerasseg.tuning.work import SearchStopped, Stop

_LOOK_SECONDS = 0.5
protos, oracle_client, _servicer = oracle_protocol()
OracleServicer: Any = _servicer


class Service(OracleServicer):
    """KerasTuner's service, which also takes down when each worker was last heard of. `former` are
    those that have trials of an earlier chief and have not been heard of.

    A worker says that it lives by asking for the trial that it runs (`GetTrial`), with its own name
    behind it.
    """

    def __init__(self, oracle: Any, search: Search, ended: Callable[[TrialRecord], None]) -> None:
        super().__init__(oracle)
        self.search = search
        self.ended = ended
        self.heard: dict[str, float] = {}
        self.former: set[str] = set()
        self.error: BaseException | None = None

    def CreateTrial(self, request: Any, context: Any) -> Any:
        """The next trial of a worker."""
        worker = request.tuner_id
        self._hear(worker)
        trial = self._answered(context, lambda: self.oracle.create_trial(worker))
        if trial.status == TrialStatus.STOPPED and self.former and not self.oracle.why_over():
            trial.status = TrialStatus.IDLE  # there may be trials of workers that do not come back
        if trial.status == TrialStatus.STOPPED:
            self.stop_triggered = True
            self.heard.pop(worker, None)
        # Values alone: a space changes its order on the way, and single precision its limits.
        values = HyperParameters()
        values.values = dict(trial.hyperparameters.values)
        given = Trial(values, trial.trial_id, trial.status)
        return protos.get_service().CreateTrialResponse(trial=given.to_proto())

    def GetTrial(self, request: Any, context: Any) -> Any:
        """A sign of life of a worker, who asks for "trial_id@worker"."""
        trial_id, _, worker = request.trial_id.partition("@")
        holder = self._answered(context, lambda: self.oracle.holder(trial_id))
        others = worker and holder != worker
        if others and not self._answered(context, lambda: self.oracle.adopt(trial_id, worker)):
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"trial {trial_id} was given to another"
            )
        self._hear(worker or holder)
        trial = Trial(HyperParameters(), trial_id, TrialStatus.RUNNING)
        return protos.get_service().GetTrialResponse(trial=trial.to_proto())

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        """A score."""
        trial_id, metrics = request.trial_id, dict(request.metrics)
        self._hear(self._answered(context, lambda: self.oracle.holder(trial_id)))
        self._answered(
            context, lambda: self.oracle.update_trial(trial_id, metrics, step=request.step)
        )
        trial = Trial(HyperParameters(), trial_id, TrialStatus.RUNNING)
        return protos.get_service().UpdateTrialResponse(trial=trial.to_proto())

    def EndTrial(self, request: Any, context: Any) -> Any:
        """A trial that is done, or given back."""
        trial = Trial.from_proto(request.trial)
        self._hear(self._answered(context, lambda: self.oracle.holder(trial.trial_id)))
        self._answered(context, lambda: self.oracle.end_trial(trial))
        path = record_path(self.search.folder, trial.trial_id)
        if path.exists():
            self.ended(read_record(path))
        return protos.get_service().EndTrialResponse()

    def _hear(self, worker: str | None) -> None:
        if worker:
            self.heard[worker] = time.monotonic()
            self.former.discard(worker)

    def _answered(self, context: Any, call: Callable[[], Any]) -> Any:
        """What the oracle answers; where it fails, so does the search."""
        try:
            return call()
        except Exception as error:
            self.error = error
            context.abort(grpc.StatusCode.INTERNAL, f"the chief has failed: {error}")


def serve(
    oracle: Any,
    search: Search,
    address: str,
    stop: threading.Event,
    ended: Callable[[TrialRecord], None],
) -> None:
    """Give out trials at `address` until there are no more and every worker knows it, or `stop`.

    A worker that says nothing for `search.worker_timeout` is given up, and its trial given to
    another; so is one that had a trial of an earlier chief. Raises `UserError` when none is left,
    or none came, and for an address that cannot be listened on.
    """
    timeout = search.settings.worker_timeout
    service = Service(oracle, search, ended)
    # One thread: the oracle answers one at a time.
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)]
    )
    protos.get_service_grpc().add_OracleServicer_to_server(service, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise UserError(
            f"--address {address}: cannot be listened on: another program has that port, or it is "
            "no address of this machine; 0.0.0.0:PORT listens on all of its addresses."
        )
    former, last_word = oracle.recall(), time.monotonic()
    service.heard |= dict.fromkeys(former, last_word)
    service.former |= set(former)
    server.start()
    print(f"Chief      waits for workers at {address}", flush=True)
    if former:
        print(f"Chief      {', '.join(former)} had trials, which are kept for them", flush=True)
    try:
        while not stop.wait(_LOOK_SECONDS):
            if service.error is not None:
                raise service.error
            now = time.monotonic()
            last_word = max([last_word, *service.heard.values()])
            for worker, heard in list(service.heard.items()):
                if now - heard > timeout:
                    service.heard.pop(worker, None)
                    service.former.discard(worker)
                    trial_id = oracle.give_up(worker)
                    lost = f"; its trial {trial_id} goes to another" if trial_id else ""
                    print(
                        f"Worker     {worker} is gone: no word for {timeout:g} seconds{lost}",
                        flush=True,
                    )
            if service.stop_triggered and not service.heard:
                return
            if not service.heard and now - last_word > timeout:
                raise UserError(
                    f"No worker has been heard of for {timeout:g} seconds (search.worker_timeout): "
                    "the search ends here, and nothing of it is lost. Start the chief and its "
                    "workers again to go on."
                )
    finally:
        server.stop(grace=1.0).wait()


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
