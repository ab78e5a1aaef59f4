"""Where the code lies and what is shipped with it; keeping generated files, so that nothing is ever lost."""

import errno
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile

PACKAGE = Path(__file__).resolve().parent
CODE_ROOT = PACKAGE.parent  # the folder around coevo_jax/ and, in a checkout, launch/ and configs/
CONFIGS = "configs"  # beside the package in a checkout, inside the package where that is installed
DAY = 86400.0  # seconds
_TEMPORARY = re.compile(r"\.(?P<name_and_host>.+\..+)\.(?P<process>\d+)\.tmp")  # as `write_parts` calls them
_LFS = b"version https://git-lfs"
LFS_WORDS = "is a pointer of git-lfs, not the file itself; fetch it with `git lfs pull`, or copy it there"
PROGRAM = "coevo"  # the console script of an installed package


def installed() -> bool:
    """Whether this is an installed package and no checkout."""
    return (PACKAGE / CONFIGS).is_dir()


def shipped(kind: str = "") -> Path:
    """The folder of the configs that come with the code, or of one kind of them, such as "paper"."""
    return (PACKAGE if installed() else CODE_ROOT) / CONFIGS / kind


def as_called(text: str) -> str:
    """Words that name commands as a checkout has them, "python -m launch.train", as the user calls them.

    That is "coevo train" where it was typed so, or where there is no checkout.
    """
    typed = Path(sys.argv[0]).name == PROGRAM
    return text.replace("python -m launch.", f"{PROGRAM} ") if typed or installed() else text


def cache_root() -> Path:
    """Folder of what is made once and kept between runs: $COEVO_CACHE, or ~/.cache/coevo_jax."""
    cache = os.environ.get("COEVO_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "coevo_jax"


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file stands for one that git-lfs has not fetched."""
    try:
        with path.open("rb") as handle:
            return handle.read(len(_LFS)) == _LFS
    except (OSError, ValueError):  # a path may hold what no path can
        return False


def require_writable(path: Path) -> None:
    """Learn before long work whether a file can be written after it: its folder is made and tried.

    Raises:
      OSError: it cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replace a file in one step: a crash leaves the old one or the new one, a full disk the old one.

    Returns the path, once the content and the name are on disk. Of two processes that write the same file,
    the later one wins. Text is written as UTF-8.
    """
    return write_parts(path, [content.encode() if isinstance(content, str) else content])


def remove_leftovers(folder: Path, pattern: str = "**/.*.tmp") -> list[Path]:
    """Delete what killed processes left of what they were writing below a folder; returns the paths.

    What a living process of this machine writes stays, and what came from another one in the last day.
    """
    removed = []
    for path in sorted(folder.glob(pattern)):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or not path.exists():  # it may have been in a folder that has just gone
            continue
        here = found["name_and_host"].endswith(f".{socket.gethostname()}")
        if _lives(int(found["process"])) if here else time.time() - path.stat().st_mtime < DAY:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def temporary_of(path: Path, *, unique: bool = False) -> Path:
    """The name under which this process writes a file or a folder before it has its own.

    Args:
      unique: another one each time, also among processes of the same number of several hosts.
    """
    name = f"{path.name}.{secrets.token_hex(8)}" if unique else path.name
    return path.with_name(f".{name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def write_parts(path: Path, parts: Iterable[bytes]) -> Path:
    """`write_whole` for a content too large for the memory; a part that raises leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as handle:
            for part in parts:
                handle.write(part)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path
