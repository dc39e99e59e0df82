"""What is said when the operating system refuses a file: the cause, and what helps against it."""

import errno
import os

import pytest

from kerasseg.cli.main import mistakes_as_sentences
from kerasseg.errors import UserError, storage_error


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "the disk is full: free some space, or name another folder with"),
        (errno.EDQUOT, "the disk quota is used up: free some space"),
        (errno.EACCES, "there is no permission: change the permissions, or name another folder"),
        (errno.EROFS, "the file system is read-only: name another folder with"),
        (errno.ENAMETOOLONG, "the name is too long: use a shorter name or path with"),
        (errno.ENOTDIR, "a part of the path is a file, not a folder: name another folder"),
        (errno.EMFILE, r"too many open files: raise the limit \(ulimit -n\)\.$"),
        (errno.ETXTBSY, "Text file busy: name another path with"),
    ],
)
def test_each_cause_has_a_remedy_of_its_own(number, expected):
    error = OSError(number, os.strerror(number))
    message = str(storage_error(error, "Writing /data/x", "records.root"))
    assert message.startswith("Writing /data/x failed: ")
    with pytest.raises(UserError, match=expected):
        raise UserError(message)
    assert ("permission" in message) == (number == errno.EACCES)
    if " with " in message:
        assert message.endswith(" with records.root=FOLDER.")


def test_the_command_line_says_the_cause(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended, mistakes_as_sentences():
        (tmp_path / "file" / "folder").mkdir()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/file/folder: a part of the path is a file, not a folder: name another "
        "folder.\n"
    )
    with pytest.raises(SystemExit), mistakes_as_sentences():
        (tmp_path / ("x" * 300)).touch()
    assert "the name is too long: use a shorter name or path.\n" in capsys.readouterr().err


def test_an_error_that_names_no_file_keeps_its_traceback():
    with pytest.raises(OSError, match="broken"), mistakes_as_sentences():
        raise OSError(errno.EINVAL, "broken")


def test_a_message_does_not_command_the_terminal(capsys):
    with pytest.raises(SystemExit), mistakes_as_sentences():
        raise FileNotFoundError(errno.ENOENT, "gone", "\x1b]0;title\x07ä\nb\udcff")
    found = capsys.readouterr().err
    assert found.startswith("error: %1B]0;title%07ä\nerror: b%FF: it does not exist")
