"""The models that a server answers with: they are loaded, replaced by newer versions, and queued.

`Models` is a folder of models, `ServedModel` one model in it, `LoadedVersion` a version of that in
memory.
"""

import gc
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasseg.serving.protocol import from_proto, serving_apis
from kerasseg.serving.server.limits import (
    Limits,
    Reason,
    Refusal,
    Spec,
    bad_input,
    check_inputs,
    check_volume_bytes,
    inflate_volume,
)

WARM_UP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_MOST_WARM_UPS = 1000
"""TensorFlow Serving replays that many, too."""


class Models:
    """The models of a folder by name; a thread looks for new versions.

    Args:
        root: Folder of NAME/VERSION/saved_model.pb.
        limits: What requests may take.
        load: Called with (name, version, folder, limits); returns a loaded and warmed version.
        say: Called with each line for the person who watches the server.
    """

    def __init__(
        self, root: Path, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._root, self._load, self._say = root, load, say
        self._served: dict[str, ServedModel] = {}
        self._stop = threading.Event()

    def update(self) -> None:
        """Load every model and version that is new. Folders that are no version are passed over."""
        folders: dict[str, dict[int, Path]] = {}
        for path in self._root.glob("*/*/saved_model.pb"):
            folder = path.parent
            if folder.name.isdecimal():
                folders.setdefault(folder.parent.name, {})[int(folder.name)] = folder
        for name in sorted(folders):
            if name not in self._served:
                served = ServedModel(name, self.limits, self._load, self._say)
                # A new dictionary, as other threads read the one that is there.
                self._served = {**self._served, name: served}
        for name, versions in sorted(folders.items()):
            self._served[name].update(versions)

    def watch(self, seconds: float) -> None:
        """Call `update` every so many seconds, in a thread, until `close`."""

        def work() -> None:
            while not self._stop.wait(seconds):
                try:
                    self.update()
                except Exception as error:  # a folder that cannot be read now may be readable later
                    self._say(f"{self._root}: could not be looked through: {error}")

        threading.Thread(target=work, daemon=True).start()

    def model(self, name: str) -> "ServedModel":
        """Return the model of that name, or raise `Refusal` if there is none."""
        served = self._served
        if name not in served:
            there = ", ".join(sorted(served)) or "none yet"
            raise Refusal(Reason.NOT_FOUND, f"There is no model {name!r}; there is {there}.")
        return served[name]

    def all(self) -> list["ServedModel"]:
        """Return the models, sorted by name."""
        return [served for _, served in sorted(self._served.items())]

    @property
    def ready(self) -> bool:
        """True if there is a model, and every one of them answers."""
        served = self.all()
        return bool(served) and all(model.version is not None for model in served)

    def close(self, seconds: float) -> None:
        """Answer the requests that wait, for at most `seconds` each model, and stop."""
        self._stop.set()
        for served in self.all():
            served.close(seconds)


@dataclass
class VersionStatus:
    """State of a version: a name of TensorFlow Serving's `ModelVersionStatus.State`, and the error
    that stopped it."""

    state: str
    error: str = ""


class ServedModel:
    """The newest version of a model that can be loaded, and a queue in front of it.

    The arguments are those of `Models`.
    """

    def __init__(
        self, name: str, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.queue = WorkQueue(name, limits.queue)
        self.statuses: dict[int, VersionStatus] = {}
        self._limits, self._load, self._say = limits, load, say
        self._current: Any = None
        self._lock = threading.Lock()
        self._broken: dict[int, tuple] = {}
        self._retired: dict[int, weakref.ref] = {}

    @property
    def version(self) -> int | None:
        """Number of the version that answers, or None."""
        current = self._current
        return None if current is None else current.version

    def get(self, version: int | None) -> Any:
        """Return the loaded version; it stays in memory as long as somebody holds it.

        Raises:
            Refusal: If another version is asked for, or none can answer yet or at all.
        """
        with self._lock:
            current = self._current
        if current is not None and version in (None, current.version):
            return current
        asked = f"version {version} of the model {self.name}" if version else self.name
        if current is not None:
            raise Refusal(Reason.NOT_FOUND, f"{asked} is not served: version {current.version} is.")
        if any(status.state in ("START", "LOADING") for status in self.statuses.values()):
            raise Refusal(
                Reason.UNAVAILABLE, f"The model {self.name} is being loaded: try again soon."
            )
        errors = [f"version {v}: {s.error}" for v, s in self.statuses.items() if s.error]
        raise Refusal(
            Reason.NOT_FOUND,
            f"No version of the model {self.name} could be loaded ({'; '.join(errors) or 'none'}).",
        )

    def predict(
        self,
        loaded: Any,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        seconds: float,
        queued: Callable[[Future], Any] = lambda future: None,
    ) -> dict[str, np.ndarray]:
        """Return the outputs of a signature when the request's turn has come.

        Args:
            loaded: A version from `get`.
            signature: Its name.
            inputs: Its inputs.
            seconds: How long the request may wait and run.
            queued: Called with the task, so that the task can be cancelled.

        Raises:
            Refusal: For inputs that do not fit, a full queue, and if the time is over.
        """
        loaded.check(signature, inputs)
        task = self.queue.put(lambda: loaded.run(signature, inputs))
        queued(task)
        outputs: dict[str, np.ndarray] = wait(task, seconds)
        return outputs

    def update(self, folders: Mapping[int, Path]) -> None:
        """Load the newest version if another one answers so far, and swap the two.

        The old one answers until then. A version that cannot be loaded is passed over until one of
        its files changes.
        """
        self._forget_retired()
        for version in sorted(folders, reverse=True):
            if version == self.version:
                return
            seen = _fingerprint(folders[version])
            if self._broken.get(version) == seen:
                continue
            self.statuses[version] = VersionStatus("LOADING")
            try:
                loaded = self._load(self.name, version, folders[version], self._limits)
            except Exception as error:  # a broken version must not end the others
                self._broken[version] = seen
                reason = _load_error(error)
                self.statuses[version] = VersionStatus("END", reason)
                kept = f"version {self.version} goes on" if self.version else "nothing is served"
                self._say(f"{self.name}: version {version} cannot be loaded, {kept}: {reason}")
                continue
            self._swap(loaded)
            return

    def close(self, seconds: float) -> None:
        """Answer the requests that wait, then nothing."""
        self.queue.stop(seconds)
        with self._lock:
            self._current = None

    def _swap(self, loaded: Any) -> None:
        self._broken.pop(loaded.version, None)
        with self._lock:
            old, self._current = self._current, loaded
        self.statuses[loaded.version] = VersionStatus("AVAILABLE")
        self._say(f"{self.name}: version {loaded.version} answers.")
        if old is not None:
            self.statuses[old.version] = VersionStatus("UNLOADING")
            self._retired[old.version] = weakref.ref(old)
            del old
            self._forget_retired()

    def _forget_retired(self) -> None:
        if not self._retired:
            return
        gc.collect()  # a loaded SavedModel refers to itself
        for version in [v for v, old in self._retired.items() if old() is None]:
            del self._retired[version]
            if version != self.version:
                self.statuses[version] = VersionStatus("END")
                self._say(f"{self.name}: version {version} is unloaded.")


def _fingerprint(folder: Path) -> tuple:
    """Return names, sizes and times of all files; they change while a copy is going on."""
    result = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        result.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(result)


def _load_error(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"its warm-up request was refused: {error.sentence}"
    lines = str(error).strip().splitlines() or ["no reason"]
    return f"{type(error).__name__}: {lines[0]}"


class WorkQueue:
    """Tasks of one model, done one after the other, as TensorFlow uses all cores for each.

    Args:
        name: Name of the model, for messages.
        size: Tasks that may wait.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size
        self._waiting: deque[tuple[Callable[[], Any], Future]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"work-{name}", daemon=True)
        self._thread.start()

    @property
    def length(self) -> int:
        """Number of tasks that wait."""
        return len(self._waiting)

    def put(self, task: Callable[[], Any]) -> Future:
        """Let `task` wait for its turn; `Future.cancel` takes it out again.

        Raises:
            Refusal: If the queue is full or the server is being stopped.
        """
        future: Future = Future()
        with self._changed:
            if self._stopped:
                raise Refusal(Reason.UNAVAILABLE, "The server is being stopped: try again later.")
            if len(self._waiting) >= self.size:
                raise Refusal(
                    Reason.UNAVAILABLE,
                    f"{self.size} requests of the model {self.name} wait already: try again later.",
                )
            self._waiting.append((task, future))
            self._changed.notify()
        future.add_done_callback(self._remove_cancelled)
        return future

    def stop(self, seconds: float) -> None:
        """Take no new task; finish those that run and wait, for at most `seconds`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(seconds)

    def _remove_cancelled(self, future: Future) -> None:
        # Its place in the queue and the memory of its volume are free again.
        if future.cancelled():
            with self._changed:
                self._waiting = deque(item for item in self._waiting if item[1] is not future)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if not self._waiting:
                    return
                task, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)
            # Otherwise the volume of this request would stay until the next one comes.
            del task, future


def wait(future: Future, seconds: float) -> Any:
    """Return the result of a task.

    Raises:
        Refusal: After `seconds`. A task that runs by then cannot be stopped; one that waits is
            taken out of the queue.
    """
    try:
        return future.result(max(seconds, 0))
    except FutureTimeoutError:  # before Python 3.11 it is not the built-in TimeoutError
        if future.done():
            raise
        future.cancel()
        raise Refusal(
            Reason.TOO_LATE, "The time for this request was over before it was answered."
        ) from None


class LoadedVersion:
    """A version of a SavedModel, loaded and warmed up.

    Raises what TensorFlow raises for a damaged one, and `Refusal` for a warm-up request that it
    does not answer.
    """

    def __init__(self, name: str, version: int, folder: Path, limits: Limits) -> None:
        self.name, self.version = name, version
        self.limits = limits
        self._loaded = tf.saved_model.load(str(folder))
        self._functions = dict(self._loaded.signatures)
        self.inputs = {
            signature: {
                key: _spec(spec) for key, spec in function.structured_input_signature[1].items()
            }
            for signature, function in self._functions.items()
        }
        self.definitions = _definitions(folder)
        self._warm_up(folder / WARM_UP_FILE)

    def specs(self, signature: str) -> Mapping[str, Spec]:
        """Return the inputs that a signature takes; raise `Refusal` if there is no such one."""
        if signature not in self.inputs:
            raise bad_input(
                f"The model {self.name} has no signature {signature!r}: there are "
                f"{', '.join(sorted(self.inputs))}."
            )
        return self.inputs[signature]

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raise `Refusal` if the signature does not take the inputs, or they are too large."""
        check_inputs(inputs, self.specs(signature))
        if signature == "segment_bytes":
            check_volume_bytes(inputs, self.limits)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of checked inputs.

        Raises:
            Refusal: With the graph's own sentence where the graph refuses or fails.
        """
        if signature == "segment_bytes":
            inputs = inflate_volume(inputs)
        tensors = {
            # tf.constant makes no string scalar of an array of objects.
            name: tf.constant(value.item() if value.dtype == object and not value.ndim else value)
            for name, value in inputs.items()
        }
        try:
            outputs = self._functions[signature](**tensors)
        except tf.errors.ResourceExhaustedError:
            raise Refusal(
                Reason.TOO_LARGE, "Memory ran out on the server: send a smaller volume."
            ) from None
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise bad_input(_graph_error(error.message)) from None
        except tf.errors.OpError as error:
            raise Refusal(Reason.FAILED, _graph_error(error.message)) from None
        return {
            name: np.asarray(value.numpy(), object if value.dtype == tf.string else None)
            for name, value in outputs.items()
        }

    def _warm_up(self, path: Path) -> None:
        if not path.is_file():
            return
        log = serving_apis().prediction_log_pb2.PredictionLog
        for record in tf.data.TFRecordDataset(str(path)).take(_MOST_WARM_UPS):
            request = log.FromString(record.numpy()).predict_log.request
            inputs = {name: from_proto(value) for name, value in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            self.check(signature, inputs)
            self.run(signature, inputs)


def _spec(spec: Any) -> Spec:
    dtype = "string" if spec.dtype == tf.string else spec.dtype.name
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Spec(dtype, shape)


def _definitions(folder: Path) -> dict[str, Any]:
    """Return the `SignatureDef` of each signature, as GetModelMetadata answers them."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {
        name: type(definition).FromString(definition.SerializeToString())
        for name, definition in (served or saved.meta_graphs)[0].signature_def.items()
        if not name.startswith("__")
    }


def _graph_error(message: str) -> str:
    """Return the line of TensorFlow's message that says what was wrong."""
    lines = [line.strip() for line in message.splitlines()]
    for line in lines:
        _, assertion, rest = line.partition("assertion failed: [")
        if assertion:
            return _up_to_closing_bracket(rest)
    noise = ("Graph execution error", "Detected at", "<stack", "[[")
    told = [line for line in lines if line and not line.startswith(noise)]
    return told[0] if told else "The graph failed without a reason."


def _up_to_closing_bracket(text: str) -> str:
    """Return `the shape is [2 3], not …` of `the shape is [2 3], not …] [and more]`."""
    depth, end = 1, len(text)
    for index, letter in enumerate(text):
        depth += (letter == "[") - (letter == "]")
        if not depth:
            end = index
            break
    return re.sub(r"\\(['\"\\])", r"\1", text[:end])  # TensorFlow escapes quotes
