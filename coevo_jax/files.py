"""Writing files so that nothing is ever lost."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replace a file in one step: a crash leaves the old one or the new one, a full disk the old one.

    Returns the path, once the content and the name are on disk. Of two processes that write the same file,
    the later one wins. Text is written as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
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
