"""How long a whole run would take on a machine: an estimate from its programs' times and stated assumptions.

What is not counted: environments that are waited for, start-up, compilation and checkpoints.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.check import slice_bounds
from coevo_jax.config.options import BudgetConfig, Config, of_round
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.config.recipe_queries import (
    branches_of,
    judgings_of,
    lead_of,
    learners_of,
    learnings_of,
    sides_of,
)
from coevo_jax.preflight.fits import Preflight, Result
from coevo_jax.recipe import Phase, schedule
from coevo_jax.sampling.shapes import CHUNKS

# Assumptions, of every task in every round; the tables that show estimates repeat them.
TRAJECTORY_SHARE = 0.5  # a trajectory's tokens, as a share of batch.row_length
AGENT_SHARE = 0.25  # of these, the agent's own: decoded one by one, the others are prefilled

ASSUMPTIONS = (
    f"a trajectory fills {TRAJECTORY_SHARE:.0%} of a row and {AGENT_SHARE:.0%} of it are the agent's tokens; "
    "every task fails and gives the target agent one pair of each kind that it learns from (co-evolution: "
    "3 pairs of 3 trajectories; ETO: 1 of 2) and the failure agent 1 pair of 2; no prefix is shared; hosts "
    "share the episodes evenly; all slots are busy; environments never make the chips wait"
)


@dataclass(frozen=True, kw_only=True)
class AgentTime:
    """Estimated seconds of one agent's parts, over all rounds."""

    roll_outs: float  # exploration and evaluation
    learning: float  # with its reference's scoring

    @property
    def total(self) -> float:
        return self.roll_outs + self.learning


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Estimated seconds of a run's parts."""

    warm_start: float
    agents: Mapping[str, AgentTime]  # by the recipe's names
    step: float  # one DPO step of the agent that the run is about, all of its microbatches
    chips: int

    @property
    def roll_outs(self) -> float:
        return sum(agent.roll_outs for agent in self.agents.values())

    @property
    def learning(self) -> float:
        return sum(agent.learning for agent in self.agents.values())

    @property
    def total(self) -> float:
        return self.warm_start + self.roll_outs + self.learning

    @property
    def chip_hours(self) -> float:
        return self.chip_hours_of(self.total)

    def chip_hours_of(self, seconds: float) -> float:
        """What so many seconds of the run cost."""
        return seconds * self.chips / 3600


def in_hours(hours: float) -> str:
    """Hours in whole ones, below ten in two digits: 0.04 is not none."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def estimate_run(result: Preflight) -> RunTime | None:
    """Seconds of the run.

    None where the chip's rates are not known, a slice of tasks has no end, a budget ends explorations and
    learning, pairs or other agents stand beside what is reinforced, or nobody knows the number of what an
    agent imitates, of the steps that a discriminator judges, or of the points from which it plays on.
    """
    config, machine = result.plan.config, result.machine
    slices = [config.warm_start.tasks, config.evaluate.tasks, *config.explore.tasks]
    open_end = any(slice_bounds(text)[1] is None for text in slices)
    learnings = learnings_of(config.recipe)
    budgeted = config.budget != BudgetConfig()
    unknown = any(one.imitations for one in learnings) or branches_of(config.recipe)
    unknown = unknown or judgings_of(config.recipe)
    if machine.chip is None or open_end or budgeted or unknown:
        return None
    alone = len(learners_of(config.recipe)) == 1
    if any(one.reinforcements and (one.pairs or not alone) for one in learnings):
        return None
    demonstrations = _size(config.warm_start.tasks)
    per_step = config.batch.step_demonstrations or _per_microbatch(config, 1)
    warm_steps = config.warm_start.epochs * math.ceil(demonstrations / per_step)
    warm = _step_seconds(result, "SFT")(_microbatches(config, min(per_step, demonstrations)))
    phases = schedule(config)
    names = dict.fromkeys(phase.agent for phase in phases)
    tasks = _size(of_round(config.explore.tasks, 1))
    lead = lead_of(config.recipe)
    first = next(iter(learnings_of(config.recipe, lead)), None)
    step = 0.0
    if first is not None and config.rounds > 0:
        step = _learning_seconds(result, config.agents[lead], first, tasks).step
    return RunTime(
        warm_start=warm_steps * warm,
        agents={name: _agent_time(result, [one for one in phases if one.agent == name]) for name in names},
        step=step,
        chips=len(machine.devices),
    )


def _agent_time(result: Preflight, phases: Sequence[Phase]) -> AgentTime:
    """The time of an agent's phases."""
    config, machine = result.plan.config, result.machine
    episodes, learned = 0, 0.0
    for phase in phases:
        tasks = _size(of_round(config.explore.tasks, max(phase.round, 1)))
        if phase.kind == "evaluate":
            episodes += _size(config.evaluate.tasks)
        elif phase.kind == "explore":
            episodes += tasks * config.explore.samples
        elif phase.learning is not None:
            agent = config.agents[phase.agent]
            learned += _learning_seconds(result, agent, phase.learning, tasks).round
    groups = machine.hosts // result.plan.rollouts.hosts  # hosts that play by themselves
    return AgentTime(roll_outs=episodes / groups * _episode_seconds(result), learning=learned)


class _Learning(NamedTuple):
    """Seconds of a step, and of a round of them with the reference's scoring."""

    step: float
    round: float


def _learning_seconds(result: Preflight, agent: AgentConfig, learning: LearnOptions, tasks: int) -> _Learning:
    config = result.plan.config
    if learning.reinforcements:
        return _reinforcing_seconds(result, agent, learning, tasks)
    pairs, trajectories = _of_a_task(learning)
    if not tasks * pairs:
        return _Learning(0.0, 0.0)
    per_step = config.batch.step_pairs or config.batch.pairs
    steps = math.ceil(tasks * pairs / per_step)
    microbatches = _microbatches(config, min(per_step, tasks * pairs) / pairs * trajectories)
    seconds = _step_seconds(result, "DPO")(microbatches)
    scoring = _total(result.result("reference scoring"))
    return _Learning(seconds, agent.epochs * steps * seconds + steps * microbatches * scoring)


def _reinforcing_seconds(
    result: Preflight, agent: AgentConfig, learning: LearnOptions, tasks: int
) -> _Learning:
    config = result.plan.config
    sampled = sum(len(source.of) for source in learning.reinforcements) * config.explore.samples
    per_step = config.batch.step_episodes or _per_microbatch(config, 1)
    steps = math.ceil(tasks * sampled / per_step)
    microbatches = _microbatches(config, min(per_step, tasks * sampled))
    seconds = _step_seconds(result, "surrogate")(microbatches)
    scoring = _total(result.result("reference scoring"))
    return _Learning(seconds, agent.epochs * steps * seconds + steps * microbatches * scoring)


def _of_a_task(learning: LearnOptions) -> tuple[int, int]:
    """Pairs and trajectories that are learned from a task: one pair of each kind and collection, or two."""
    pairs = 0
    for source in learning.pairs:
        played = len(set(source.of))
        pairs += math.comb(played, 2) if source.pairs == "better_over_worse" else played
    return pairs, len(sides_of(learning))


def _step_seconds(result: Preflight, title: str) -> Callable[[int], float]:
    """Seconds of an optimizer step as a function of its microbatches."""
    whole = result.result(f"{title} step")
    if whole is not None:
        return lambda microbatches: microbatches * _total(whole)  # every microbatch is a step
    micro, update = result.result(f"{title} microbatch"), result.result(f"{title} update")
    logps = result.result(f"{title} logps")
    return lambda microbatches: microbatches * (_total(micro) + _total(logps)) + _total(update)


def _total(result: Result | None) -> float:
    return result.seconds.total if result is not None and result.seconds is not None else 0.0


def _episode_seconds(result: Preflight) -> float:
    """Seconds that one episode takes of a host whose slots are all busy."""
    config = result.plan.config
    tokens = config.batch.row_length * TRAJECTORY_SHARE
    decoded = tokens * AGENT_SHARE * _total(result.result("decode")) / config.rollout.slots
    calls = (tokens * (1 - AGENT_SHARE)) / (CHUNKS[-1] * result.plan.prefill_rows)
    return decoded + calls * _total(result.result("prefill"))


def _per_microbatch(config: Config, trajectories: float) -> int:
    return max(1, int(config.batch.rows / (TRAJECTORY_SHARE * trajectories)))


def _microbatches(config: Config, trajectories: float) -> int:
    return max(1, math.ceil(trajectories * TRAJECTORY_SHARE / config.batch.rows))


def _size(text: str) -> int:
    start, stop = slice_bounds(text)
    assert stop is not None
    return stop - (start or 0)
