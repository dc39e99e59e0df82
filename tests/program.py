"""Python programs in processes of their own that need not import TensorFlow any more.

Importing it takes a core three to five seconds, and a hundred tests need a fresh process. So they
are forked off one that has imported it and done nothing else (multiprocessing's forkserver). A test
of importing itself, or of what stands at an interpreter's start, needs a real one.
"""

import gc
import importlib
import io
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from PIL import Image

from kerasseg.tensorflow_setup import set_flags

REPOSITORY = Path(__file__).parents[1]
TIMEOUT = 1200.0
"""Seconds after which a program that hangs fails its test."""
NO_FIGURES = {"KERASSEG_TEST_FIGURES": "no"}
"""The environment of a program whose figures are made, but hold one grey pixel each."""
_FORK_SERVER = "KERASSEG_TEST_FORK_SERVER"


class Program:
    """`python ARGUMENT…`, where the first one is a script or -m.

    Stands in `cwd` (the repository) under `env` (this process's, without GPUs).
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="program-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **(env or {})}
        names = [str(self._folder / name) for name in ("stdout", "stderr")]
        words = [str(word) for word in arguments]
        self._process = fork_context().Process(
            target=_run, args=(words, str(cwd), environment, names)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has said so far."""
        return self._said("stdout")

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return self._said("stderr")

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float = TIMEOUT) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            self.kill()
            raise AssertionError(f"hangs after {timeout} s: {self.stdout}\n{self.stderr}")
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """If it still runs."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self._process.join()

    def _said(self, name: str) -> str:
        path = self._folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""


def start_program(arguments: Sequence[str | Path]) -> tuple[Program, Callable[[], str]]:
    """Start a program, as `benchmarks.serving_process` asks for one."""
    program = Program(arguments)
    return program, lambda: program.stderr


def run_program(
    arguments: Sequence[str | Path],
    *,
    cwd: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    program = Program(arguments, cwd=cwd, env=env)
    code = program.wait()
    words = [str(word) for word in arguments]
    return subprocess.CompletedProcess(words, code, program.stdout, program.stderr)


def fork_context() -> ForkServerContext:
    """Return the context whose processes are forked off one that has imported TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


def share_fork_server(worker: bool) -> None:
    """Have all workers of pytest-xdist use one fork server, which takes eight seconds to start.

    Args:
        worker: False in the process that starts the workers; it starts the server, too.
    """
    server = forkserver._forkserver
    if not worker:
        fork_context()
        server.ensure_running()
        os.environ[_FORK_SERVER] = server._forkserver_address
    elif _FORK_SERVER in os.environ:
        server._forkserver_address = os.environ[_FORK_SERVER]
        # The process that started the server holds the pipe whose end would end it.
        server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)
        server.ensure_running = resource_tracker.ensure_running


def fork_worker() -> int:
    """Stand for the Python that execnet starts as `PYTHON -u -c CODE`: fork it, and wait for it.

    A worker of pytest-xdist is spared the import of TensorFlow, and the end of an interpreter with
    millions of objects.
    """
    share_fork_server(worker=True)
    standard = [Connection(os.dup(number)) for number in range(3)]
    arguments = (sys.argv[-1], standard, dict(os.environ))
    worker = fork_context().Process(target=_be_worker, args=arguments)
    worker.start()
    for connection in standard:
        connection.close()
    worker.join()
    return worker.exitcode or 0


def _be_worker(code: str, standard: list[Connection], environment: dict[str, str]) -> None:
    for number, connection in enumerate(standard):
        os.dup2(connection.fileno(), number)
        connection.close()
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found anew, as TMPDIR may be another
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (multiprocessing closed it)
    exec(code, {"__name__": "__main__"})


def draw_no_figures(patch: Callable[[str, object], object]) -> None:
    """Have figures be one grey pixel: turning text and lines into pixels takes most of a page.

    Args:
        patch: Sets the attribute of that import path, as pytest's `monkeypatch.setattr` does.
    """
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 128).save(buffer, "PNG")
    for module in ("kerasseg.page", "kerasseg.figures.style"):
        patch(f"{module}.to_png", lambda figure: buffer.getvalue())


def keep_no_stacks() -> None:
    """Have operations of graphs not keep Python's stack, as under pytest it is a hundred frames.

    It takes a twenty-fifth of all time and is shown only by TensorFlow's own errors.
    """
    from tensorflow.python.util import tf_stack

    shallow = tf_stack.extract_stack()
    # Resolved once and for all, as other threads that have no Python may read them.
    str(shallow), shallow.get_user_frames(), shallow.last_user_frame()
    tf_stack.extract_stack = lambda stacklevel=1: shallow


def _run(arguments: list[str], cwd: str, environment: dict[str, str], outputs: list[str]) -> None:
    for number, name in enumerate(outputs, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    # Ctrl-C ends it as in a terminal, also where a script runs the tests in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    set_flags()
    sys.path.insert(0, str(REPOSITORY))
    tempfile.tempdir = None  # found anew, as TMPDIR may be another
    os.chdir(cwd)
    import tensorflow  # of tests.preloaded

    # Takes longer than the few steps that are made here.
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    gc.set_threshold(200_000, 20, 100)  # as in tests/conftest.py
    if NO_FIGURES.items() <= environment.items():
        draw_no_figures(_set)
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


def _set(path: str, value: object) -> None:
    module, _, name = path.rpartition(".")
    setattr(importlib.import_module(module), name, value)
