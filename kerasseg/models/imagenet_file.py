"""A file of ImageNet weights from Keras's download cache, downloaded if it is not there."""

import hashlib
import http.client
import os
import queue
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from kerasseg.errors import UserError, storage_error
from kerasseg.progress import track

_SECONDS: Final = 10.0
"""How long a server may take to answer, and to send the next bytes."""

_BLOCK: Final = 1 << 20


def imagenet_file(name: str, url: str, md5: str | None) -> Path:
    """Path of the file `name` in Keras's cache, downloaded from `url` if need be.

    Keras's own `get_file` waits minutes for a network that swallows packets, and writes under
    the final name: after a crash, half a file counts as cached where Keras knows no checksum.
    This gives up after seconds and writes aside. A file that is there with the right checksum
    (or none known) is used without touching the network.

    Raises `UserError` that says how to get the file by other means.
    """
    path = _cache() / name
    found = path.exists()
    if found and (md5 is None or _md5(path) == md5):
        return path
    try:
        _download(url, path, md5)
    except _DownloadFailed as error:
        state = f"is not the one Keras knows (not md5 {md5})" if found else "is not there"
        raise UserError(
            f"model.pretrained.weights=imagenet: {path} {state}, and downloading it failed "
            f"({error}). Fetch {url} on a machine that can and save it as {path}, or set "
            "model.pretrained.weights to the path of the file, or to none for random weights."
        ) from error
    return path


class _DownloadFailed(Exception):
    """Why the file did not come."""


def _cache() -> Path:
    """Keras's folder for weights of applications."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras").expanduser() / "models"


def _download(url: str, path: Path, md5: str | None) -> None:
    with _response(url) as response:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # In a folder of its own: the runs of several folds may download at the same time.
            with TemporaryDirectory(dir=path.parent, prefix=".incomplete-") as folder:
                temporary = Path(folder) / path.name
                _receive(response, temporary, path, md5)
                temporary.replace(path)
        except OSError as error:
            raise storage_error(error, f"Writing {path}", "KERAS_HOME") from error


def _receive(response: Any, temporary: Path, path: Path, md5: str | None) -> None:
    expected = int(response.headers.get("Content-Length") or 0)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    blocks = track(_blocks(response), -(-expected // _BLOCK), f"Downloading {path} (MiB)")
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
    if expected and size != expected:
        raise _DownloadFailed(f"it broke off after {size} of {expected} bytes")
    if md5 is not None and digest.hexdigest() != md5:
        raise _DownloadFailed(f"what came has the md5 {digest.hexdigest()}, not {md5}")


def _blocks(response: Any) -> Iterator[bytes]:
    try:
        while block := response.read(_BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:  # of the network, not of the disk
        raise _DownloadFailed(f"it broke off: {error}") from error


def _response(url: str) -> Any:
    """The opened `url`, through the proxies of the environment.

    `urlopen` alone applies its limit to each of the host's addresses in turn, and none to
    looking up its name.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_SECONDS)
    except queue.Empty:
        raise _DownloadFailed(f"no answer within {_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise _DownloadFailed(str(answer)) from answer
    return answer


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
