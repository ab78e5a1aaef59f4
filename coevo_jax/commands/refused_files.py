"""What an operation on a file that the system refuses says to the user: which one, where, what helps."""

import errno
import os

_WRITING = {  # only a write fails like this
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "nothing can be written there",
    errno.EEXIST: "something else has this name",
    errno.ENOTEMPTY: "something else has this name",
}
_LOOKED_AT = {  # a read or a write, which the file itself tells
    errno.EACCES: "",
    errno.EPERM: "",
    errno.EISDIR: "a file was expected",
    errno.ENOTDIR: "a folder was expected on the way",
    errno.ENAMETOOLONG: "",
    errno.EIO: "",
    errno.ESTALE: "",
}


def refusal(error: OSError) -> str | None:
    """One sentence on an error; None where it is none of a file that the user can do something about."""
    number, path = error.errno, error.filename
    if number is None or not (number in _WRITING or (number in _LOOKED_AT and path is not None)):
        return None
    name = "" if path is None else os.fsdecode(path)
    where = name and f" {name}"
    operation = "write" if number in _WRITING else _operation(name)
    advice = _WRITING.get(number) or _LOOKED_AT.get(number)
    words = f"cannot {operation}{where}: {os.strerror(number)}"
    return f"{words}; {advice}" if advice else words


def _operation(path: str) -> str:
    """What was tried at a path: its mode forbids reading, or the way to it is closed, else it was a write."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.X_OK):
        return "reach"
    if os.path.isfile(path) and not os.access(path, os.R_OK):
        return "read"
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        return "read"
    return "write"
