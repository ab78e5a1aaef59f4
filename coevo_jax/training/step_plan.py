"""What the steps of a phase learn from, and one step with its inputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing.plan import BatchPlan
from coevo_jax.learning.train_state import Agents, TrainState

# The microbatches as a step sees them, by the step's position in the phase and the state before it: their
# references may be refreshed on the way.
BatchSource = Callable[[int, TrainState], Sequence[PreferenceBatch]]


@dataclass(frozen=True, kw_only=True)
class StepArguments:
    """What of the agents a step takes, and how they are afterwards."""

    take: Callable[[Agents], tuple[Any, Any]]  # -> the state that is trained, and what is frozen
    give: Callable[[Agents, Any], Agents]


def alone(agent: str) -> StepArguments:
    """An agent's own state, and the base that adapters adapt."""
    return StepArguments(
        take=lambda agents: (agents[agent], agents.frozen),
        give=lambda agents, state: agents.having(agent, state),
    )


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What a phase's steps learn from, and how."""

    plan: BatchPlan
    batches_at: BatchSource
    steps: int  # that are taken in all, epoch after epoch
    beta: float
    rate: Callable[[int, int], float]  # (position, steps) -> learning rate
    files: Callable[[], list[Path]]  # what a commit on the way records beside the state
    arguments: StepArguments | None = None  # of a learning with another model beside the agent's
    sides: Sequence[Mapping[str, Any]] = ()  # of each trajectory of the plan: what names it, for messages


@dataclass(frozen=True, kw_only=True)
class Step:
    """An optimizer step whose inputs are on the devices, or on their way."""

    position: int  # in the phase
    numbers: Sequence[int]  # of its microbatches
    batches: Sequence[PreferenceBatch]
    hosted: Sequence[PreferenceBatch]  # the same as they were made, NumPy's
    rate: jax.Array
