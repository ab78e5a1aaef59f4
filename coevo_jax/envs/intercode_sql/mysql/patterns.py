"""LIKE and REGEXP."""

import functools
import time
from typing import Any

import regex

from coevo_jax.envs.intercode_sql.mysql.collation import collation_key
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

REGEX_SECONDS = 0.5  # of CPU, for one match; it holds the interpreter all the while


REGEX_ERRORS = {
    "missing )": "Mismatched parenthesis in regular expression.",
    "unbalanced parenthesis": "Mismatched parenthesis in regular expression.",
    "unterminated character set": "The regular expression contains an unclosed bracket expression.",
    "bad set": "The regular expression contains an unclosed bracket expression.",
    "bad escape": "Unrecognized escape sequence in regular expression.",
    "bad character range": "The regular expression contains an [x-y] character range where x comes after y.",
}


class TimeIsUp(Exception):
    """A pattern took longer than a query may."""


@functools.lru_cache(maxsize=2000)
def like_pattern(pattern: str, escape: str = "\\") -> regex.Pattern[str]:
    """A LIKE pattern that matches the collation keys of texts."""
    parts = []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == escape and place + 1 < len(pattern):
            place += 1
            parts.append(regex.escape(_fold(pattern[place])))
        elif letter == "%":
            parts.append(".*")
        elif letter == "_":
            parts.append(".")
        else:
            parts.append(regex.escape(_fold(letter)))
        place += 1
    return regex.compile("".join(parts), regex.DOTALL)


def _fold(letter: str) -> str:
    return letter if letter == " " else collation_key(letter)


def like(text: str, pattern: str, escape: str = "\\") -> int:
    """text LIKE pattern: trailing blanks count, case and accents do not."""
    blanks = len(text) - len(text.rstrip(" "))
    folded = collation_key(text) + " " * blanks
    try:
        return int(like_pattern(pattern, escape).fullmatch(folded, timeout=REGEX_SECONDS) is not None)
    except TimeoutError:
        raise TimeIsUp from None


@functools.lru_cache(maxsize=500)
def _compiled(pattern: str, flags: int) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern, flags)
    except (regex.error, RecursionError) as error:
        raise SqlError(_regex_error(pattern, str(error))) from None


def _regex_error(pattern: str, message: str) -> str:
    """ICU's words for a pattern that is none, by what our own library says of it."""
    for part, words in REGEX_ERRORS.items():
        if part in message:
            return words
    place = int(found[1]) + 1 if (found := regex.search(r"position (\d+)", message)) else len(pattern)
    return f"Syntax error in regular expression on line 1, character {place}."


def regexp_flags(kind: str) -> int:
    """Flags of a match type such as "c"."""
    flags = regex.IGNORECASE
    for letter in kind:
        if letter == "c":
            flags &= ~regex.IGNORECASE
        elif letter == "i":
            flags |= regex.IGNORECASE
        elif letter == "n":
            flags |= regex.DOTALL
        elif letter == "m":
            flags |= regex.MULTILINE
    return flags


def matches(text: str, pattern: str, deadline: float, kind: str = "") -> int:
    """text REGEXP pattern."""
    if not pattern:
        raise SqlError("Illegal argument to a regular expression.")
    left = min(REGEX_SECONDS, max(0.001, deadline - time.monotonic()))
    try:
        return int(_compiled(pattern, regexp_flags(kind)).search(text, timeout=left) is not None)
    except TimeoutError:
        raise TimeIsUp from None


def substitute(text: str, pattern: str, new: str, deadline: float) -> Any:
    """REGEXP_REPLACE."""
    left = min(REGEX_SECONDS, max(0.001, deadline - time.monotonic()))
    try:
        return _compiled(pattern, regex.IGNORECASE).sub(
            regex.sub(r"\$(\d)", r"\\\1", new), text, timeout=left
        )
    except TimeoutError:
        raise TimeIsUp from None


def found(text: str, pattern: str, deadline: float) -> regex.Match[str] | None:
    """The first match, for REGEXP_SUBSTR and REGEXP_INSTR."""
    left = min(REGEX_SECONDS, max(0.001, deadline - time.monotonic()))
    try:
        return _compiled(pattern, regex.IGNORECASE).search(text, timeout=left)
    except TimeoutError:
        raise TimeIsUp from None
