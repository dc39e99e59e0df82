"""The error that is shown to a user as a sentence instead of a traceback; the wish to stop."""

import errno
import signal
import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, undecodable bytes, and ends of lines."""
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make a terminal write from right to left, so that a name looks like another."""


def printable(text: str, keep: str = "") -> str:
    """Write every byte of a text that a terminal or UTF-8 cannot show as %XX.

    The names of files may hold any byte but "/" and 0. Python hides those that are no UTF-8 in
    surrogates, which can neither be printed nor stored; an escape byte would steer the terminal.

    Args:
        text: A name, or a message with names in it.
        keep: Control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape"))
        if (unicodedata.category(c) in _UNPRINTABLE or c in _TURNING) and c not in keep
        else c
        for c in text
    )


class UserError(ValueError):
    """A mistake that the user can mend.

    The message says which file or setting is wrong, what was expected and found, and what to do.
    The command line prints it as one line and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, keep="\n"))


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end.

    `number` is the signal: SIGINT comes from Ctrl-C; SIGTERM from `kill`, Slurm, Kubernetes and the
    pre-emption of clouds.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_ANOTHER_FOLDER = "name another folder{option}"
_STORAGE_ERRORS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", f"free some space, or {_ANOTHER_FOLDER}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space, or {_ANOTHER_FOLDER}"),
    errno.EACCES: ("there is no permission", f"change the permissions, or {_ANOTHER_FOLDER}"),
    errno.EPERM: ("there is no permission", f"change the permissions, or {_ANOTHER_FOLDER}"),
    errno.EROFS: ("the file system is read-only", _ANOTHER_FOLDER),
    errno.ENAMETOOLONG: ("the name is too long", "use a shorter name or path{option}"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", _ANOTHER_FOLDER),
    errno.EISDIR: ("it is a folder, not a file", "name another path{option}"),
    errno.EEXIST: ("there is a file of this name", _ANOTHER_FOLDER),
    errno.ENOENT: ("it does not exist", "check the path{option}"),
    errno.EMFILE: ("this process has too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("the system has too many open files", "end other programs"),
    errno.EIO: ("the disk reports a fault", f"check the disk, or {_ANOTHER_FOLDER}"),
    errno.ESTALE: ("the network folder was changed by its server", "mount it again"),
}
"""Number of an operating system's error -> what is wrong, and what to do about it."""


def describe_storage_error(error: OSError, option: str = "") -> str:
    """Return what is wrong with a file or folder and what to do, in half a sentence.

    `option` is how the user names another folder, such as "records.root=FOLDER"; if it is empty the
    half sentence does not say it.
    """
    unknown = (error.strerror or str(error), "name another path{option}")
    reason, remedy = _STORAGE_ERRORS.get(error.errno or 0, unknown)
    return f"{reason}: {remedy.format(option=f' with {option}' if option else '')}"


def storage_error(error: OSError, doing: str, setting: str) -> UserError:
    """Turn a failed write into a sentence.

    Args:
        doing: What failed, with the file's name: "Writing /data/x.tfrecord".
        setting: The setting that moves the file to another folder: "records.root".
    """
    return UserError(f"{doing} failed: {describe_storage_error(error, f'{setting}=FOLDER')}.")
