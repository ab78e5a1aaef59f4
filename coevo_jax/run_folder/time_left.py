"""How long the rest of a run takes, by what its phases have taken so far."""

from collections.abc import Mapping
from typing import NamedTuple

from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import Config, of_round
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.config.recipe_queries import sides_of
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.manifest import Manifest

PLAYS = ("explore", "evaluate")  # phases that play episodes from their tasks' starts


class Played(NamedTuple):
    """The episodes of a phase that is over."""

    episodes: int
    failures: int


def episodes_played(manifest: Manifest) -> dict[str, Played]:
    """The episodes of every phase that is over, by its name."""
    summaries = {record.name: record.records.get("summary", {}) for record in manifest.done}
    return {
        name: Played(summary["n"], summary["failure_count"])
        for name, summary in summaries.items()
        if "failure_count" in summary
    }


class TimeLeft(NamedTuple):
    """Seconds of the phases that something was measured of, and how well they are known."""

    seconds: float
    guessed: int  # phases of a kind that has not been measured: reckoned from another kind
    unknown: int  # phases of which nothing is known

    def words_of(self, seconds: str) -> str:
        """How the time is told: exactly, about, or at least."""
        return ("at least " if self.unknown else "about " if self.guessed else "") + seconds


def time_after(
    config: Config, measured: Mapping[str, float], name: str, played: Mapping[str, Played] | None = None
) -> TimeLeft:
    """The time of all phases after one.

    A phase takes what that of its name took in the last round, or else what those of its kind took on
    average; one that explores, in proportion to its tasks. Before the first of its kind, episodes take what
    those of the other phases that play took, and a trajectory learned from what a demonstration took in the
    warm start: as if every task that is failed gave one pair of each kind, each side of it once an epoch, and
    as many were failed as so far.

    Args:
      measured: seconds of phases, by name; of those that go on, as they are expected in all.
      played: episodes of phases that are over, by name.
    """
    phases = schedule(config)
    names = [phase.name for phase in phases]
    known = [phase for phase in phases if phase.name in measured]
    later = [phase for phase in phases[names.index(name) + 1 :] if phase.name not in measured]
    alike = [_alike(config, phase, known, measured) for phase in later]
    others = [
        _from_other_kinds(config, phase, known, measured, played or {}) if exact is None else None
        for phase, exact in zip(later, alike, strict=True)
    ]
    guessed = [one for one in others if one is not None]
    exact = [one for one in alike if one is not None]
    return TimeLeft(sum(exact) + sum(guessed), len(guessed), len(later) - len(exact) - len(guessed))


def _alike(config: Config, phase: Phase, known: list[Phase], measured: Mapping[str, float]) -> float | None:
    """Seconds by phases of its name or kind."""
    same = [other for other in known if other.name.rpartition("/")[2] == phase.name.rpartition("/")[2]]
    alike = same[-1:] or [other for other in known if other.kind == phase.kind]
    if not alike:
        return None
    seconds = (measured[other.name] * _relative_size(config, phase, other) for other in alike)
    return sum(seconds) / len(alike)


def _from_other_kinds(
    config: Config,
    phase: Phase,
    known: list[Phase],
    measured: Mapping[str, float],
    played: Mapping[str, Played],
) -> float | None:
    """Seconds by episodes of other phases that play, or by the warm start's demonstrations."""
    if phase.kind in PLAYS:
        others = [other for other in known if other.kind in PLAYS and other.name in played]
        tasks = _tasks(of_round(config.explore.tasks, phase.round) if phase.kind == "explore" else None)
        if not others or tasks is None:
            return None
        seconds = sum(measured[other.name] for other in others)
        episodes = sum(played[other.name].episodes for other in others)
        return seconds / episodes * tasks * config.explore.samples if episodes else None
    if phase.learning is not None:
        tasks = _tasks(of_round(config.explore.tasks, phase.round))
        passes = (_tasks(config.warm_start.tasks) or 0) * config.warm_start.epochs
        if "warm_start" not in measured or not passes or tasks is None:
            return None
        episodes = sum(one.episodes for one in played.values())
        failed = sum(one.failures for one in played.values()) / episodes if episodes else 1.0
        learned = tasks * trajectories_of_a_task(phase.learning, config.explore.samples, failed)
        return measured["warm_start"] / passes * learned * config.agents[phase.agent].epochs
    return None


def trajectories_of_a_task(learning: LearnOptions, samples: int, failed: float) -> float:
    """What is learned of a task on average, where a share of them is failed and gives each kind of pair."""
    imitated = sum(max(len(source.of), 1) for source in learning.imitations)
    return (
        failed * len(sides_of(learning))
        + imitated
        + samples * sum(len(source.of) for source in learning.reinforcements)
    )


def _relative_size(config: Config, phase: Phase, other: Phase) -> float:
    """Tasks that a phase plays, over those of another of its kind; 1 where their number is not known."""
    if phase.kind != "explore":
        return 1.0
    mine, theirs = (_tasks(of_round(config.explore.tasks, one.round)) for one in (phase, other))
    return mine / theirs if mine and theirs else 1.0


def _tasks(where: str | None) -> int | None:
    start, stop = (None, None) if where is None else slice_bounds(where)
    return None if stop is None else stop - (start or 0)
