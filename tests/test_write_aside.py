import errno

import pytest

from kerasseg.errors import UserError
from kerasseg.files import write_aside


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    for error, expected in [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full.*run.root=FOLDER"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission to write"),
        (OSError(errno.EROFS, "Read-only"), "read-only"),
    ]:
        with pytest.raises(UserError, match=expected), write_aside(path, "run.root") as temporary:
            temporary.write_text("half of the n")
            raise error
    with pytest.raises(KeyboardInterrupt), write_aside(path, "run.root") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with write_aside(path, "run.root") as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
