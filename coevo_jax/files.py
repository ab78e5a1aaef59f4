"""Writing files so that nothing is ever lost."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> Path:
    """Replace a file in one step: a crash leaves the old one or the new one, a full disk the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
