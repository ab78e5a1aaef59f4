"""What a check says: that something holds, is broken and where, or cannot be checked and why."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from coevo_jax.config.strict import ConfigError

State = Literal["held", "BROKEN", "not checkable"]
SHOWN = 3  # problems that a line tells in full


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the audit."""

    name: str  # such as "pairs/round-01/learn_target"
    state: State
    words: str  # what was looked at; or where, what was found and what was expected; or why not


class NotCheckable(Exception):
    """What a check needs is gone or was never there; the message says what and why."""


UNREADABLE = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(pa.ArrowException, ConfigError),
)
NO_DERIVATION = (NotCheckable, *UNREADABLE)


def judge(name: str, problems: Iterable[str], held: Callable[[], str]) -> Check:
    """The check's result: broken with its first problems, or held with what `held` says was looked at.

    A file that cannot be read is a problem of the check that needs it.
    """
    shown: list[str] = []
    count = 0
    try:
        for problem in problems:
            count += 1
            shown += [problem] if count <= SHOWN else []
        if not count:
            return Check(name=name, state="held", words=held())
    except NotCheckable as reason:
        if not count:
            return Check(name=name, state="not checkable", words=str(reason))
    except UNREADABLE as error:
        count += 1
        shown.append(f"cannot be read: {type(error).__name__}: {error}")
    more = f" (and {count - SHOWN} more)" if count > SHOWN else ""
    return Check(name=name, state="BROKEN", words="; ".join(shown[:SHOWN]) + more)


def differs(where: str, found: object, expected: object) -> Iterator[str]:
    """The problem that two values differ, if they do."""
    if found != expected:
        yield f"{where}: found {found}, expected {expected}"


def far(where: str, found: float, expected: float, tolerance: float) -> Iterator[str]:
    """The problem that two numbers are farther apart than the tolerance; a NaN is far from everything."""
    if not abs(found - expected) <= tolerance:
        yield f"{where}: found {found:.9g}, expected {expected:.9g}"


def same(found: Any, expected: Any) -> bool:
    """Whether two values are the same, numbers to 12 digits: the order of a sum may change the rest."""
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(same(found.get(k), v) for k, v in expected.items())
    if isinstance(expected, list):
        alike = isinstance(found, list) and len(found) == len(expected)
        return alike and all(same(a, b) for a, b in zip(found, expected, strict=True))
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(found - expected) <= 1e-12 * max(1.0, abs(expected))
    return found == expected
