"""What the system would do to a file that is opened, renamed or made: refuse it, or kill the process there.

Python tells an audit hook of each such operation before it is done. Hooks cannot be taken away again: there
is one, which asks the rule that is in force.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
Rule = Callable[[str, bool], None]  # is given a path and whether it is written; raises or kills

_rule: Rule | None = None
_hooked = False


@contextlib.contextmanager
def ruled(folder: Path, rule: Rule) -> Iterator[None]:
    """Ask a rule about every operation on a file below a folder."""
    global _rule
    below = f"{folder.absolute()}{os.sep}"

    def of_folder(path: str, writes: bool) -> None:
        if os.path.abspath(path).startswith(below):
            rule(path, writes)

    _hook_once()
    _rule = of_folder
    try:
        yield
    finally:
        _rule = None


def _hook_once() -> None:
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple) -> None:
    if _rule is None or event not in ("open", "os.rename", "os.mkdir"):
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if isinstance(path, (str, bytes, os.PathLike)):
        writes = event != "open" or bool(arguments[2] & WRITING)
        _rule(os.fsdecode(path), writes)
