"""The one error that is shown to a user as a sentence instead of a traceback."""

import errno


class UserError(ValueError):
    """Something the user can mend: says which file or setting, what was found, what to do.

    The command line prints it as one line and exits with code 2.
    """


def storage_error(error: OSError, doing: str, setting: str) -> UserError:
    """Turn a failed write into a sentence.

    `doing` names the file ("writing /data/x.tfrecord"); `setting` is the setting that would
    move it somewhere else ("records.root").
    """
    reasons = {
        errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
        errno.EDQUOT: "the disk quota is used up: free some space, or name another folder",
        errno.EACCES: "no permission to write there: change the permission, or name another folder",
        errno.EPERM: "no permission to write there: change the permission, or name another folder",
        errno.EROFS: "the file system is read-only: name another folder",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}: name another folder")
    return UserError(f"{doing} failed: {reason} with {setting}=FOLDER.")
