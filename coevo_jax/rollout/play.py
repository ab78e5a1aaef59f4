"""Plays the episodes of one agent, or of two: while one decodes, the environments of the other step."""

import functools
import operator
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, zip_longest
from typing import Any

import jax
from rich.console import Console

from coevo_jax.data.chat.format import ChatFormat
from coevo_jax.envs.env import Task
from coevo_jax.methods.hints import NO_HINTS, Hints
from coevo_jax.rollout.bar import ProgressBar
from coevo_jax.rollout.device_clock import DeviceClock
from coevo_jax.rollout.joining import run_lanes, threads_of
from coevo_jax.rollout.lane import Episode, Lane
from coevo_jax.rollout.lockstep import Environments
from coevo_jax.rollout.questions import QuestionSet
from coevo_jax.rollout.replay import Start
from coevo_jax.rollout.slots import SlotEngine
from coevo_jax.rollout.stats import RolloutStats, ServerCounts, percentiles, sums_of
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import Trajectory

Played = tuple[list[Trajectory], RolloutStats]


@dataclass(frozen=True, kw_only=True, eq=False)
class BranchPoint:
    """A point from which episodes of a task are played; they are samples of it from `first_sample` on."""

    task: Task
    start: Start
    first_sample: int


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeSet:
    """The episodes that one agent plays: its weights, the tasks, and the number of samples of each."""

    agent: str  # name recorded in the trajectories
    weights: Any  # of the engine's `load`; agents whose adapters share a base name the same ones
    adapter: int = 0  # which of their adapters is the agent's
    tasks: Sequence[Task]
    samples: int  # episodes of every task
    first_sample: int = 0
    phase: int  # part of every random key
    mark: str = ""  # that the tasks are played under (`methods.marks`)
    hints: Callable[[str, int], Hints] = lambda task_id, sample: NO_HINTS  # of a task's sample

    @property
    def count(self) -> int:
        return len(self.tasks) * self.samples

    def episodes(self, number: int) -> list[Episode]:
        return [
            Episode(
                order=(number, index * self.samples + sample),
                agent=self.agent,
                adapter=self.adapter,
                phase=self.phase,
                task=task,
                sample=self.first_sample + sample,
                mark=self.mark,
                hints=self.hints(task.id, self.first_sample + sample),
            )
            for index, task in enumerate(self.tasks)
            for sample in range(self.samples)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class BranchSet:
    """The episodes that one agent plays from points in the middle of others."""

    agent: str  # name recorded in the trajectories
    weights: Any  # of the engine's `load`
    adapter: int = 0
    points: Sequence[BranchPoint]
    samples: int  # episodes from every point
    turns: int | None  # most turns of each, null to the episode's end
    phase: int  # part of every random key

    @property
    def count(self) -> int:
        return len(self.points) * self.samples

    def episodes(self, number: int) -> list[Episode]:
        return [
            Episode(
                order=(number, index * self.samples + sample),
                agent=self.agent,
                adapter=self.adapter,
                phase=self.phase,
                task=point.task,
                sample=point.first_sample + sample,
                start=point.start,
                most_turns=self.turns,
            )
            for index, point in enumerate(self.points)
            for sample in range(self.samples)
        ]


AnySet = EpisodeSet | BranchSet | QuestionSet


def play(
    engine: SlotEngine,
    params: Any,
    pool: Environments,
    chat: ChatFormat,
    tasks: Sequence[Task],
    *,
    adapters: Sequence[Any] = (),
    agent: str,
    samples: int,
    temperature: float,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    seed: int,
    phase: int,
    mark: str = "",
    script: Mapping[str, Sequence[Sequence[int]]] | None = None,
    progress: Console | None = None,
    label: str = "roll-outs",
    watch: Callable[[Episode], None] = lambda episode: None,
) -> Played:
    """Play `samples` episodes of every task.

    Args:
      engine: its slots are emptied first; slots, limits, block size and the joining of turns are its own.
      pool: environment instances, kept by the caller across calls; one per slot of the engine.
      adapters: the agent's, where `params` are the base that it adapts; one or none.
      agent: name recorded in the trajectories.
      temperature, top_p, top_k, min_p: sampling distribution (`sampling.draw`); temperature 0 is greedy.
      seed, phase: with task, sample, turn and position they name each token's random key, so an episode
        does not depend on its slot, on its neighbours or on the number of slots.
      mark: that the tasks are played under; "" plays without.
      script: tokens of the agent's turns by task id, written instead of drawn; their log-probabilities are
        recorded as if they had been drawn. Such turns know no `max_turn_tokens`.
      progress: where to show it: a bar on a terminal, elsewhere a line every few seconds and at the end.
      label: what the bar calls the work.
      watch: called when an episode has begun, and after each of its turns that the environment answered,
        in the thread that plays it.

    Returns:
      One trajectory per episode, ordered by task, then sample, and the counts of this call. An episode that
      cannot be played has the ending `fault`; a fault never raises.
    """
    weights = engine.load(params, adapters)
    cast = EpisodeSet(agent=agent, weights=weights, tasks=tasks, samples=samples, phase=phase, mark=mark)
    sampling = Sampling(
        root=jax.random.key(seed), temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p
    )
    [played] = play_together(
        engine,
        pool,
        chat,
        [cast],
        sampling=sampling,
        script=script,
        progress=progress,
        label=label,
        watch=watch,
    )
    return played


def play_together(
    engine: SlotEngine,
    pool: Environments,
    chat: ChatFormat,
    casts: Sequence[AnySet],
    *,
    sampling: Sampling,
    prefix: Sequence[int] = (),
    script: Mapping[str, Sequence[Sequence[int]]] | None = None,
    progress: Console | None = None,
    label: str = "roll-outs",
    between_blocks: Callable[[], None] = lambda: None,
    watch: Callable[[Episode], None] = lambda episode: None,
) -> list[Played]:
    """Play the episodes of several agents side by side; an episode is the one its agent would play alone.

    Agents with weights of their own have slots each, on an engine or on several (`lanes`), and take turns on
    the device: one's environments step while the other decodes. A CPU works on all of them at a time.
    Adapters of the same weights share all slots in one batch.

    Args:
      prefix: tokens that all prompts begin with. The engine keeps what it computes of them for the next call
        with the same weights.
      between_blocks: called now and then in this thread; what it raises ends the playing after a block.
      watch: as in `play`.

    Returns:
      What `play` returns, for each cast. Costs that cannot be told apart stand in the counts of each.
    """
    by_weights: dict[int, list[tuple[int, AnySet]]] = {}
    for index, cast in enumerate(casts):
        by_weights.setdefault(id(cast.weights), []).append((index, cast))
    total = sum(cast.count for cast in casts)
    wanted = len(by_weights) * engine.lanes
    room = _room(engine.slots, wanted, pool.most)
    in_turn = pool.most is not None and pool.most < wanted
    before = _Before(calls=pool.calls, seconds=pool.seconds, started=time.monotonic())
    pool.latencies.clear()
    with (
        ProgressBar(progress, label=label, total=total, slots=room * wanted) as bar,
        DeviceClock() as clock,
    ):
        lanes: list[Lane] = []
        own = engine
        for group in by_weights.values():
            queues = [cast.episodes(index) for index, cast in group]
            episodes = [one for one in chain(*zip_longest(*queues)) if one is not None]
            for waiting in _spread(episodes, engine.lanes):
                own = own.twin() if lanes else engine
                lanes.append(
                    Lane(
                        engine=own,
                        weights=group[0][1].weights,
                        adapters=1 + max(cast.adapter for _, cast in group),
                        prefix=prefix,
                        pool=pool,
                        first_env=0 if in_turn else len(lanes) * room,
                        chat=chat,
                        sampling=sampling,
                        script=script or {},
                        waiting=waiting,
                        bar=bar,
                        clock=clock,
                        watch=watch,
                        room=room,
                    )
                )
        for together in [[lane] for lane in lanes] if in_turn else [lanes]:
            run_lanes(together, engine.config.joining, bar, between_blocks)
    threads = 1 if in_turn else threads_of(lanes, engine.config.joining)
    return _results(casts, lanes, pool, clock, before, threads)


def _spread(episodes: Sequence[Episode], lanes: int) -> list[deque[Episode]]:
    """The episodes of each lane that has any, of one in any case.

    Those of a task stay together, because they share what they begin with.
    """
    spread: list[deque[Episode]] = [deque() for _ in range(lanes)]
    places: dict[str, int] = {}
    for episode in episodes:
        spread[places.setdefault(episode.task.id, len(places)) % lanes].append(episode)
    return [lane for lane in spread if lane] or spread[:1]


def _room(slots: int, lanes: int, most: int | None) -> int:
    """Slots of a lane that play: all, unless the environment takes fewer instances at a time."""
    return slots if most is None else min(slots, max(1, most // lanes))


@dataclass(frozen=True, kw_only=True)
class _Before:
    """The pool's counts and the time when playing began."""

    calls: int
    seconds: float
    started: float


def _results(
    casts: Sequence[AnySet],
    lanes: Sequence[Lane],
    pool: Environments,
    clock: DeviceClock,
    before: _Before,
    threads: int,
) -> list[Played]:
    done = {order: trajectory for lane in lanes for order, trajectory in lane.done.items()}
    shared: dict[str, Any] = {
        "seconds": time.monotonic() - before.started,
        "decode_seconds": clock.seconds["decode"],
        "prefill_seconds": clock.seconds["prefill"],
        "decoded_tokens": sum(lane.decoded_tokens for lane in lanes),
        "env_wait_seconds": sum(lane.env_wait for lane in lanes) / threads,
        "env_calls": pool.calls - before.calls,
        "env_seconds": pool.seconds - before.seconds,
        "env_latency": percentiles(pool.latencies),
    }
    shared |= _engine_counts(lanes)
    played = []
    for number, cast in enumerate(casts):
        trajectories = [done[number, place] for place in range(cast.count)]
        played.append((trajectories, RolloutStats(**sums_of(trajectories), **shared)))
    return played


def _engine_counts(lanes: Sequence[Lane]) -> dict[str, Any]:
    """Fields of `RolloutStats`: the sums over the lanes' engines, which are all of one kind."""
    counts = [lane.engine.counts for lane in lanes]
    total = {
        field.name: functools.reduce(operator.add, (getattr(one, field.name) for one in counts))
        for field in fields(counts[0])
    }
    return {"server": ServerCounts(**total)} if isinstance(counts[0], ServerCounts) else total
