"""Files that are whole or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerasseg.errors import storage_error


@contextmanager
def write_aside(path: Path, setting: str) -> Iterator[Path]:
    """Yield a temporary path of the same suffix beside `path`, renamed to it on success.

    On any failure the temporary file is removed and an older `path` stays as it was. An `OSError`
    becomes a `UserError` that names `path` and the `setting` that would move it elsewhere.
    """
    temporary = path.with_name(f".{path.stem}.incomplete{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise storage_error(error, f"Writing {path}", setting) from error
    finally:
        temporary.unlink(missing_ok=True)
