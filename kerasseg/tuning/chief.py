"""The chief of a search on several machines: KerasTuner's service, with an eye on its workers."""

import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from keras_tuner import HyperParameters
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from kerasseg.errors import UserError
from kerasseg.tuning.record import TrialRecord, read_record, record_path
from kerasseg.tuning.search import Search

_LOOK_SECONDS = 0.5


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
