"""How long a whole run would take on a machine: an estimate from its programs' times and stated assumptions.

What is not counted: environments that are waited for, start-up, compilation and checkpoints.
"""

import math
from dataclasses import dataclass

from coevo_jax.config import Config, of_round
from coevo_jax.config_check import slice_bounds
from coevo_jax.preflight.check import Preflight, Result
from coevo_jax.sampling.engine import CHUNKS

# Assumptions, of every task in every round; the tables that show estimates repeat them.
TRAJECTORY_SHARE = 0.5  # a trajectory's tokens, as a share of batch.row_length
AGENT_SHARE = 0.25  # of these, the agent's own: decoded one by one, the others are prefilled
TARGET_PAIRS = 3  # expert over either agent's failure, and failure over failure
TARGET_TRAJECTORIES = 3
FAILURE_PAIRS = 1
FAILURE_TRAJECTORIES = 2

ASSUMPTIONS = (
    f"a trajectory fills {TRAJECTORY_SHARE:.0%} of a row and {AGENT_SHARE:.0%} of it are the agent's tokens; "
    f"every task fails and gives the target agent {TARGET_PAIRS} pairs of {TARGET_TRAJECTORIES} trajectories "
    f"and the failure agent {FAILURE_PAIRS} pair of {FAILURE_TRAJECTORIES}; no prefix is shared; hosts share "
    "the episodes evenly; all slots are busy; environments never make the chips wait"
)


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Estimated seconds of a run's parts, over all rounds."""

    warm_start: float
    roll_outs: float  # exploration and evaluation
    learning: float  # of both agents, with scoring
    step: float  # one DPO step, all of its microbatches
    chips: int

    @property
    def total(self) -> float:
        return self.warm_start + self.roll_outs + self.learning

    @property
    def chip_hours(self) -> float:
        return self.total * self.chips / 3600


def estimate_run(result: Preflight) -> RunTime | None:
    """Seconds of the run; None where the chip's rates are not known or a slice of tasks has no end."""
    config, machine = result.plan.config, result.machine
    slices = [config.warm_start.tasks, config.evaluate.tasks, *config.explore.tasks]
    if machine.chip is None or any(slice_bounds(text)[1] is None for text in slices):
        return None
    warm, step = _step_seconds(result, "SFT", config), _step_seconds(result, "DPO", config)
    batch = config.batch
    demonstrations = _size(config.warm_start.tasks)
    per_step = batch.step_demonstrations or _per_microbatch(config, 1)
    warm_steps = config.warm_start.epochs * math.ceil(demonstrations / per_step)
    warm_seconds = warm_steps * warm(_microbatches(config, min(per_step, demonstrations)))
    learned, episodes = 0.0, _size(config.evaluate.tasks) * _agents(config)
    scoring = result.result("reference scoring")
    typical = 0.0
    for number in range(1, config.rounds + 1):
        tasks = _size(of_round(config.explore.tasks, number))
        episodes += tasks * config.explore.samples * (3 if config.failure.explore else 1)
        episodes += _size(config.evaluate.tasks) * _agents(config)
        for epochs, pairs, trajectories in _agents_pairs(config):
            per_step = batch.step_pairs or batch.pairs
            count = math.ceil(tasks * pairs / per_step)
            micro = _microbatches(config, min(per_step, tasks * pairs) / pairs * trajectories)
            learned += epochs * count * step(micro) + count * micro * _total(scoring)
            typical = typical or step(micro)
    return RunTime(
        warm_start=warm_seconds,
        roll_outs=episodes / machine.hosts * _episode_seconds(result),
        learning=learned,
        step=typical,
        chips=len(machine.devices),
    )


def _step_seconds(result: Preflight, title: str, config: Config):
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


def _agents(config: Config) -> int:
    return 2 if config.failure.explore and config.evaluate.failure_agent else 1


def _agents_pairs(config: Config) -> list[tuple[int, int, int]]:
    """Epochs, pairs and trajectories of a task, for each agent that learns."""
    agents = [(config.target.epochs, TARGET_PAIRS, TARGET_TRAJECTORIES)]
    if config.failure.explore and config.failure.learn:
        agents.append((config.failure.epochs, FAILURE_PAIRS, FAILURE_TRAJECTORIES))
    return agents


def _per_microbatch(config: Config, trajectories: float) -> int:
    return max(1, int(config.batch.rows / (TRAJECTORY_SHARE * trajectories)))


def _microbatches(config: Config, trajectories: float) -> int:
    return max(1, math.ceil(trajectories * TRAJECTORY_SHARE / config.batch.rows))


def _size(text: str) -> int:
    start, stop = slice_bounds(text)
    assert stop is not None
    return stop - (start or 0)
