"""How long the rest of a run takes, by what its phases have taken so far."""

from collections.abc import Mapping
from typing import NamedTuple

from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config, of_round
from coevo_jax.recipe import Phase, schedule


class TimeLeft(NamedTuple):
    """Seconds of the phases that something alike was measured of, and the number of the others."""

    seconds: float
    unknown: int


def time_after(config: Config, measured: Mapping[str, float], name: str) -> TimeLeft:
    """The time of all phases after one.

    A phase takes what that of its name took in the last round, or else what those of its kind took on
    average; one that plays, in proportion to its tasks.

    Args:
      measured: seconds of phases, by name; of those that go on, as they are expected in all.
    """
    phases = schedule(config)
    names = [phase.name for phase in phases]
    known = [phase for phase in phases if phase.name in measured]
    later = [phase for phase in phases[names.index(name) + 1 :] if phase.name not in measured]
    expected = [_expected(config, phase, known, measured) for phase in later]
    seconds = [one for one in expected if one is not None]
    return TimeLeft(sum(seconds), len(expected) - len(seconds))


def _expected(
    config: Config, phase: Phase, known: list[Phase], measured: Mapping[str, float]
) -> float | None:
    same = [other for other in known if other.name.rpartition("/")[2] == phase.name.rpartition("/")[2]]
    alike = same[-1:] or [other for other in known if other.kind == phase.kind]
    if not alike:
        return None
    seconds = (measured[other.name] * _relative_size(config, phase, other) for other in alike)
    return sum(seconds) / len(alike)


def _relative_size(config: Config, phase: Phase, other: Phase) -> float:
    """Tasks that a phase plays, over those of another of its kind; 1 where their number is not known."""
    if phase.kind != "explore":
        return 1.0
    mine, theirs = (_tasks(of_round(config.explore.tasks, one.round)) for one in (phase, other))
    return mine / theirs if mine and theirs else 1.0


def _tasks(where: str) -> int | None:
    start, stop = slice_bounds(where)
    return None if stop is None else stop - (start or 0)
