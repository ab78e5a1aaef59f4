"""Rows of JSON files, one at a time: arrays and JSON lines, of any size, with the place of every row.

Files packed by gzip are read as they are. Values stay as JSON has them: text is text, and integers are exact.

An array is cut into its elements by a scanner that knows strings and brackets only, so that a broken element
is reported and the next one still read. A string ends at a line break at the latest, where JSON ends it too.
Where brackets do not close, the next element is looked for at a line that begins as the broken one did.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from coevo_jax.config.strict import ConfigError

CHUNK = 1 << 20
MOST_BYTES = 64 << 20  # of an element; a longer one counts as never closed
LEXEME = re.compile(rb'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"|["{}\[\],]')
GZIP_MAGIC = b"\x1f\x8b"
WRONG_ENCODINGS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
HALF_PAIR = re.compile("[\ud800-\udfff]")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class JsonRow:
    """One row as it stands in a source: a value, or what is wrong with it."""

    where: str  # "line 7", or "element 3 (line 40)"
    index: int  # counted from 0
    done: int  # how far the source has been read, in the unit of its total
    value: Any = None
    problem: str | None = None


def json_rows(path: Path, chunk: int = CHUNK) -> Iterator[JsonRow]:
    """Yield the elements of a JSON array, or the lines of a JSON lines file; `done` counts unpacked bytes.

    Raises:
      ConfigError: the file is missing, empty or neither of the two, or its packed data is broken.
    """
    with _open(path) as handle:
        try:
            yield from _rows(path, handle, chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ConfigError(f"{path}: found gzip data that cannot be unpacked: {error}") from None


def is_packed(path: Path) -> bool:
    """Whether a file is packed by gzip, by its first bytes."""
    with path.open("rb") as handle:
        return handle.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _rows(path: Path, handle: BinaryIO, chunk: int) -> Iterator[JsonRow]:
    start = handle.read(4096)
    for mark, name in WRONG_ENCODINGS.items():
        if start.startswith(mark):
            raise ConfigError(f"{path}: found {name} data, expected UTF-8 text, packed by gzip or not at all")
    start = start.removeprefix(BYTE_ORDER_MARK).lstrip()
    handle.seek(0)
    if start.startswith(b"["):
        yield from _elements(handle, chunk)
    elif start.startswith(b"{"):
        _refuse_one_object(path, start)
        yield from _lines(handle)
    elif start.startswith(b'"{'):
        yield from _lines(handle)  # objects as JSON in strings
    else:
        shown = start[:20].decode(errors="replace") or "nothing"
        raise ConfigError(
            f"{path}: line 1: found {shown!r}, expected a JSON array of rows, or one JSON object a line"
        )


def write_json(rows: Iterable[dict[str, Any]], *, lines: bool) -> Iterator[bytes]:
    """Yield the parts of a file: one row a line, and brackets and commas around them unless `lines`."""
    before = b"" if lines else b"[\n"
    for row in rows:
        yield before + json.dumps(row, ensure_ascii=False).encode() + (b"\n" if lines else b"")
        before = b"" if lines else b",\n"
    if not lines:
        yield b"[]\n" if before == b"[\n" else b"\n]\n"


def _open(path: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, gzip.open(path)) if is_packed(path) else path.open("rb")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _refuse_one_object(path: Path, start: bytes) -> None:
    first, newline, _ = start.partition(b"\n")
    if newline and first.strip() == b"{":
        raise ConfigError(
            f"{path}: line 1: found one JSON object over several lines, expected an array of rows, or one "
            "object a line"
        )


def _lines(handle: BinaryIO) -> Iterator[JsonRow]:
    index, done = 0, 0
    for number, line in enumerate(handle, start=1):
        done += len(line)
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if not text.strip():
            continue
        value, problem = parse(text.rstrip(b"\r\n"))
        yield JsonRow(where=f"line {number}", index=index, done=done, value=value, problem=problem)
        index += 1


def parse(text: bytes, line: int | None = None) -> tuple[Any, str | None]:
    """One value from its UTF-8 text: (value, None), or (None, what is wrong).

    `line` is the file's line at which the text begins; the problem names the line it lies in if that differs.
    """
    try:
        decoded = text.decode()
        value = json.loads(decoded, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\ud" in decoded or "\\uD" in decoded:
            _refuse_half_pair(value)
    except UnicodeDecodeError as error:
        return None, f"invalid UTF-8 (byte 0x{text[error.start]:02x} at byte {error.start} of the row)"
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if line is None else f"line {line + error.lineno - 1}"
        return None, f"broken JSON: {error.msg} ({place})"
    except RecursionError:
        return None, "broken JSON: nested too deeply"
    except ValueError as error:
        return None, f"broken JSON: {error}"
    return value, None


def _refuse_half_pair(value: Any) -> None:
    """Refuse half of a surrogate pair, which no file of text can hold."""
    if found := HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError(f"{found.group()!r} is half of a surrogate pair, which is no text")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is beyond the largest number")
    return number


class _Window:
    """The part of a file in memory: what lies before `start` is done with, more is read when needed."""

    def __init__(self, handle: BinaryIO, chunk: int) -> None:
        self._handle, self._chunk = handle, chunk
        self._before = 0  # bytes of the file before the window
        self.data = handle.read(chunk)
        self.start = 0
        self.line = 1  # line of the file at `start`
        self.at_end = not self.data

    @property
    def done(self) -> int:
        return self._before + self.start

    def advance(self, position: int) -> None:
        """Move `start` forward."""
        position = min(position, len(self.data))
        self.line += self.data.count(b"\n", self.start, position)
        self.start = position

    def more(self) -> int:
        """Forget what is done with and read as much again as is left; returns by how much places moved."""
        kept = self.data[self.start :]
        fresh = self._handle.read(max(self._chunk, len(kept)))
        self.at_end = not fresh
        moved, self.data = self.start, kept + fresh
        self._before += moved
        self.start = 0
        return moved


def _elements(handle: BinaryIO, chunk: int) -> Iterator[JsonRow]:
    window = _Window(handle, chunk)
    window.advance(window.data.index(b"[") + 1)
    index, last = 0, False
    while not last:
        end, last, closed = _element_end(window)
        resumed = None if closed else _next_start(window)
        if resumed is not None:
            end, last = resumed, False
        text = window.data[window.start : end]
        body = text.lstrip()
        line = window.line + text.count(b"\n", 0, len(text) - len(body))
        window.advance(end + (resumed is None))
        if resumed is not None:
            body = body.rstrip().removesuffix(b",")
        value, problem = None, None
        if body.strip():
            value, problem = parse(body, line)
        elif closed and last and index == 0:
            break
        else:
            problem = "broken JSON: expected a row here"
        if not closed:
            value, problem = None, problem or "broken JSON: no closing bracket"
            problem += "; what follows cannot be told apart" if resumed is None else ""
        where = f"element {index} (line {line})"
        yield JsonRow(where=where, index=index, done=window.done, value=value, problem=problem)
        index += 1
    yield from _behind(window, index)


def _behind(window: _Window, index: int) -> Iterator[JsonRow]:
    """A row that reports what stands behind the array, if anything does."""
    while not window.data[window.start :].strip() and not window.at_end:
        window.advance(len(window.data))
        window.more()
    rest = window.data[window.start :]
    if rest.strip():
        line = window.line + rest.count(b"\n", 0, len(rest) - len(rest.lstrip()))
        problem = f"found {rest.strip()[:20].decode(errors='replace')!r} behind the end of the array"
        yield JsonRow(where=f"line {line}", index=index, done=window.done, problem=problem)


def _element_end(window: _Window) -> tuple[int, bool, bool]:
    """Where the window's first element ends, whether it is the last, and whether it ends properly."""
    position, depth = window.start, 0
    while True:
        lexeme = LEXEME.search(window.data, position)
        if lexeme is None or lexeme.group() == b'"':
            # A string whose end is not in the window yet, or one that its line's end cuts off.
            line_end = -1 if lexeme is None else window.data.find(b"\n", lexeme.end())
            if line_end >= 0:
                position = line_end
            elif window.at_end or len(window.data) - window.start > MOST_BYTES:
                return len(window.data), True, False
            else:
                position = len(window.data) if lexeme is None else lexeme.start()
                position -= window.more()
            continue
        position, kind = lexeme.end(), lexeme.group()
        if kind in (b"{", b"["):
            depth += 1
        elif depth and kind in (b"}", b"]"):
            depth -= 1
        elif not depth and kind == b"]" and not _goes_on(window, position):
            return lexeme.start(), True, True
        elif not depth and kind == b",":
            return lexeme.start(), False, True


def _goes_on(window: _Window, position: int) -> bool:
    """Whether a bracket that should end the array is one too many: a comma or brace follows."""
    return window.data[position : position + CHUNK].lstrip()[:1] in (b",", b"}")


def _next_start(window: _Window) -> int | None:
    """Where the next element begins behind one that never closes: a line that begins like the broken one."""
    text = window.data[window.start : window.start + CHUNK]
    blank = text[: len(text) - len(text.lstrip())]
    line_start = blank.rfind(b"\n")
    if line_start < 0:
        return None
    mark = blank[line_start:] + text[len(blank) : len(blank) + 1]
    found = window.data.find(mark, window.start + len(blank))
    return found if found >= 0 else None
