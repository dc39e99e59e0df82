"""`Models`: everything below the folder of models, kept up to date.

`LoadedVersion`: one version of a SavedModel in memory.

The SavedModels below a folder: `NAME/VERSION/saved_model.pb`.

`WorkQueue`: one thread, and a bounded number of tasks that wait for it.

`ServedModel`: the versions of one model, of which one answers.
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

from kerasseg.errors import UserError
from kerasseg.serving.protocol import from_proto, serving_apis
from kerasseg.serving.server.checks import (
    Limits,
    Reason,
    Refusal,
    Spec,
    check_claim,
    check_inputs,
    unpack_volume,
)

_ASSERTION = "assertion failed: ["
WARM_UP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
_MOST_WARM_UPS = 1000
"""As many as TensorFlow Serving replays."""


class LoadedVersion:
    """A SavedModel, loaded and warmed up.

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
        """Input name -> what it must be. Raises `Refusal` for a signature that is not there."""
        if signature not in self.inputs:
            raise Refusal(
                Reason.BAD_INPUT,
                f"The model {self.name} has no signature {signature!r}: there are "
                f"{', '.join(sorted(self.inputs))}.",
            )
        return self.inputs[signature]

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises `Refusal` for inputs that the signature does not take."""
        check_inputs(inputs, self.specs(signature))
        if self._takes_bytes(signature):
            check_claim(inputs, self.limits, self._channels)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of checked inputs. Raises `Refusal` where the graph refuses or fails."""
        if self._takes_bytes(signature):
            inputs = unpack_volume(inputs)
        tensors = {name: tf.constant(_for_tensorflow(value)) for name, value in inputs.items()}
        try:
            outputs = self._functions[signature](**tensors)
        except tf.errors.ResourceExhaustedError:
            raise Refusal(
                Reason.TOO_LARGE, "Memory ran out on the server: send a smaller volume."
            ) from None
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise Refusal(Reason.BAD_INPUT, _sentence(error.message)) from None
        except tf.errors.OpError as error:
            raise Refusal(Reason.FAILED, _sentence(error.message)) from None
        return {name: _for_numpy(value) for name, value in outputs.items()}

    def _takes_bytes(self, signature: str) -> bool:
        return signature == "segment_bytes"

    @property
    def _channels(self) -> int | None:
        volume = self.inputs.get("segment", {}).get("volume")
        return volume.shape[-1] if volume is not None and volume.shape else None

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


def _for_tensorflow(value: np.ndarray) -> Any:
    return value.item() if value.dtype == object and value.ndim == 0 else value


def _for_numpy(value: Any) -> np.ndarray:
    return np.asarray(value.numpy(), object if value.dtype == tf.string else None)


def _definitions(folder: Path) -> dict[str, Any]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    return {
        name: type(definition).FromString(definition.SerializeToString())
        for name, definition in (served or saved.meta_graphs)[0].signature_def.items()
        if not name.startswith("__")
    }


def _first_in_brackets(words: str) -> str:
    """Of "the shape is [2 3], not …] [and more]" what stands before the bracket that closes it."""
    depth, end = 1, len(words)
    for index, letter in enumerate(words):
        depth += (letter == "[") - (letter == "]")
        if not depth:
            end = index
            break
    return re.sub(r"\\(['\"\\])", r"\1", words[:end])  # TensorFlow escapes them


def _sentence(message: str) -> str:
    """The line of TensorFlow's message that says what was wrong."""
    lines = [line.strip() for line in message.splitlines()]
    for line in lines:
        if _ASSERTION in line:
            return _first_in_brackets(line.split(_ASSERTION, 1)[1])
    told = [
        line
        for line in lines
        if line and not line.startswith(("Graph execution error", "Detected at", "<stack", "[["))
    ]
    return told[0] if told else "The graph failed without a reason."


FILE = "saved_model.pb"


def version_folders(root: Path) -> dict[str, dict[int, Path]]:
    """Model name -> version -> folder; what is no model is passed over.

    A folder that goes away meanwhile is one that is not there.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in root.glob(f"*/*/{FILE}"):
        folder = path.parent
        if folder.name.isdecimal():
            found.setdefault(folder.parent.name, {})[int(folder.name)] = folder
    return found


def check_models_folder(root: Path) -> None:
    """Raises `UserError` if there is no model, and says which folder was meant if that is seen."""
    if not root.is_dir():
        raise UserError(f"MODELS_DIR: {root} is no folder (looked from {Path.cwd()}).")
    if version_folders(root):
        return
    meant = None
    if (root / FILE).is_file():
        meant = root.resolve().parent.parent
    elif any(path.parent.name.isdecimal() for path in root.glob(f"*/{FILE}")):
        meant = root.resolve().parent
    hint = f"name {meant} instead" if meant else "make one with kerasseg export"
    raise UserError(f"MODELS_DIR: {root} holds no NAME/VERSION/{FILE}: {hint}.")


def fingerprint(folder: Path) -> tuple:
    """Names, sizes and times of all files: another one where a copy has gone on."""
    result = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        result.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(result)


class WorkQueue:
    """Tasks of one model, one after the other: TensorFlow uses all cores for each.

    size: tasks that may wait
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
        """Tasks that wait."""
        return len(self._waiting)

    def put(self, task: Callable[[], Any]) -> Future:
        """Let `task` wait for its turn; `Future.cancel` takes it out again.

        Raises `Refusal` if the queue is full or the server is being stopped.
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
        future.add_done_callback(self._take_out)
        return future

    def stop(self, seconds: float) -> None:
        """Take nothing new; finish what runs and what waits, for at most `seconds`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(seconds)

    def _take_out(self, future: Future) -> None:
        """Its place and its volume are free again."""
        if future.cancelled():
            with self._changed:
                kept = [item for item in self._waiting if item[1] is not future]
                self._waiting = deque(kept)

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
            # Else the volume of this request would stay until the next one comes.
            del task, future


def wait(future: Future, seconds: float) -> Any:
    """What the task returned.

    Raises `Refusal` after `seconds`; a task that runs by then cannot be stopped, one that waits is
    taken out.
    """
    try:
        return future.result(max(seconds, 0))
    except FutureTimeoutError:  # before Python 3.11 another one than the built-in
        if future.done():
            raise
        future.cancel()
        raise Refusal(
            Reason.TOO_LATE, "The time for this request was over before it was answered."
        ) from None


@dataclass
class VersionStatus:
    """state: a name of TensorFlow Serving's ModelVersionStatus.State. error: why it failed."""

    state: str
    error: str = ""


class ServedModel:
    """The newest version that can be loaded, and a queue in front of it.

    load: (name, version, folder, limits) -> a loaded and warmed version
    say:  takes a line for whoever watches the server
    """

    def __init__(
        self, name: str, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.work = WorkQueue(name, limits.queue)
        self.statuses: dict[int, VersionStatus] = {}
        self._limits, self._load, self._say = limits, load, say
        self._current: Any = None
        self._lock = threading.Lock()
        self._broken: dict[int, tuple] = {}
        self._retired: dict[int, weakref.ref] = {}

    @property
    def version(self) -> int | None:
        """The one that answers."""
        current = self._current
        return None if current is None else current.version

    def get(self, version: int | None) -> Any:
        """The loaded version; whoever holds it keeps it in memory.

        Raises `Refusal` if another version is asked for, or none can answer yet or at all.
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

    def update(self, folders: dict[int, Path]) -> None:
        """Load the newest version there is, if another one answers so far, and swap the two.

        The old one answers until then. A version that cannot be loaded is passed over until one of
        its files changes.
        """
        self._forget_retired()
        for version in sorted(folders, reverse=True):
            if version == self.version:
                return
            seen = fingerprint(folders[version])
            if self._broken.get(version) == seen:
                continue
            self.statuses[version] = VersionStatus("LOADING")
            try:
                loaded = self._load(self.name, version, folders[version], self._limits)
            except Exception as error:  # a broken version must not end the others
                self._broken[version] = seen
                reason = _words(error)
                self.statuses[version] = VersionStatus("END", reason)
                kept = f"version {self.version} goes on" if self.version else "nothing is served"
                self._say(f"{self.name}: version {version} cannot be loaded, {kept}: {reason}")
                continue
            self._swap(loaded)
            return

    def close(self, seconds: float) -> None:
        """Answer what waits, then nothing."""
        self.work.stop(seconds)
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


def _words(error: Exception) -> str:
    if isinstance(error, Refusal):
        return f"its warm-up request was refused: {error.sentence}"
    lines = str(error).strip().splitlines() or ["no reason"]
    return f"{type(error).__name__}: {lines[0]}"


class Models:
    """The models of a folder by name; a thread looks for new versions.

    load: as in `ServedModel`
    say:  takes a line for whoever watches the server
    """

    def __init__(
        self, root: Path, limits: Limits, load: Callable[..., Any], say: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self._root, self._load, self._say = root, load, say
        self._served: dict[str, ServedModel] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self) -> None:
        """Load what is new."""
        folders = version_folders(self._root)
        for name in sorted(folders):
            if name not in self._served:
                served = ServedModel(name, self.limits, self._load, self._say)
                self._served = {**self._served, name: served}
        for name, versions in sorted(folders.items()):
            self._served[name].update(versions)

    def watch(self, seconds: float) -> None:
        """`update` every so many seconds, in a thread, until `close`."""
        self._thread = threading.Thread(target=self._watch, args=(seconds,), daemon=True)
        self._thread.start()

    def model(self, name: str) -> ServedModel:
        """Raises `Refusal` for a name that is not there."""
        served = self._served
        if name not in served:
            there = ", ".join(sorted(served)) or "none yet"
            raise Refusal(Reason.NOT_FOUND, f"There is no model {name!r}; there is {there}.")
        return served[name]

    def all(self) -> list[ServedModel]:
        """By name."""
        return [served for _, served in sorted(self._served.items())]

    @property
    def ready(self) -> bool:
        """Whether there is a model, and every one of them answers."""
        served = self.all()
        return bool(served) and all(model.version is not None for model in served)

    def close(self, seconds: float) -> None:
        """Answer what waits, for at most `seconds` each, and stop."""
        self._stop.set()
        for served in self.all():
            served.close(seconds)

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.update()
            except Exception as error:  # a folder that cannot be read now may be readable later
                self._say(f"{self._root}: could not be looked through: {error}")
