"""Waiting for the other machines, where Ctrl-C and SIGTERM still work."""

import os
import socket
import threading
import time
from contextlib import suppress

from kerasseg.errors import UserError
from kerasseg.training.cluster import Cluster

_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_REPORT_SECONDS = 30.0


def wait_for_workers(cluster: Cluster) -> None:
    """Return when every other worker has answered at its address; says which have not yet.

    TensorFlow waits by itself, but in C++, holding Python's lock: it says nothing, and neither
    Ctrl-C nor SIGTERM ends it. Here each worker listens at its own port until all others have
    answered; TensorFlow's server takes the port over. Raises `UserError` if the port is taken.
    """
    own = cluster.addresses[cluster.worker]
    try:
        listener = socket.create_server(("", _port(own)), backlog=len(cluster.addresses))
    except OSError as error:
        raise UserError(
            f"Worker {cluster.worker} of TF_CONFIG cannot listen at {own} ({_words(error)}): is "
            "an earlier run still there? End it, or give another port in every worker's TF_CONFIG."
        ) from None
    with listener:
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        missing = {n: a for n, a in enumerate(cluster.addresses) if n != cluster.worker}
        report = time.monotonic() + _REPORT_SECONDS
        while missing:
            problems = {n: _problem(address) for n, address in missing.items()}
            missing = {n: missing[n] for n, problem in problems.items() if problem}
            if missing and time.monotonic() > report:
                report += _REPORT_SECONDS
                who = ", ".join(f"{n} at {missing[n]} ({problems[n]})" for n in missing)
                print(f"Still waiting for worker {who}; Ctrl-C ends it.", flush=True)
            time.sleep(_PAUSE_SECONDS if missing else 0.0)
        # A thread in accept() would keep the port.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _answer(listener: socket.socket) -> None:
    """Accept who asks; that it is there is all the answer."""
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


def _problem(address: str) -> str:
    """Why nobody answers there; empty if somebody does."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, _port(address)), _CONNECT_SECONDS).close()
    except OSError as error:
        return _words(error)
    return ""


def _words(error: OSError) -> str:
    known = error.errno is not None and error.errno > 0  # those of the resolver are not
    return os.strerror(error.errno or 0) if known else error.strerror or str(error)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
