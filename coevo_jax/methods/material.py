"""The input and output of a builder: collections of one round with the experts, and what is learned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from coevo_jax.trajectory import Trajectory


class Chat(Protocol):
    """The chat format of a run, as far as builders write texts of their own."""

    @property
    def end_id(self) -> int:
        """The token that ends an agent's turn."""
        ...

    def prompt_ids(self, system: str, prompt: str) -> list[int]:
        """The tokens of a conversation's start, up to the agent's turn."""
        ...

    def response_ids(self, text: str) -> list[int]:
        """Tokens of an agent's turn, with the end token."""
        ...

    def observation_ids(self, observation: str) -> list[int]:
        """The tokens between the end of an agent's turn and the start of its next one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Material:
    """The trajectories that a source of a recipe names, and the experts of their tasks."""

    played: tuple[Sequence[Trajectory], ...]  # collections of the round, in the order in which they are named
    experts: Mapping[str, Trajectory]  # by task id: those of the warm start and of the explored tasks
    chat: Chat | None = None  # where texts are to be rendered that nobody played
    round: int = 1  # from 1
    branches: Sequence[Trajectory] = ()  # what a phase that branches in iterations has played in earlier ones
    # Whether an answer says that an action was invalid or failed, as the environment tells; no answer does
    # where nobody said which do.
    is_error: Callable[[str], bool] = lambda observation: False
    # The actions that an answer lists, as the environment reads them.
    offered: Callable[[str], Sequence[str]] = lambda observation: ()
    system_prompt: str = ""  # of every conversation
    seed: int = 0  # of the run, and the name of the phase that is given this: part of the names of draws
    phase: str = ""

    def expert(self, task_id: str) -> Trajectory | None:
        """The expert of a task, if there is one in which the expert wrote a token."""
        expert = self.experts.get(task_id)
        return expert if expert is not None and expert.agent_mask.any() else None


class Preference(NamedTuple):
    """A chosen and a rejected trajectory of one task, and the first turn of each whose tokens count."""

    chosen: Trajectory
    rejected: Trajectory
    chosen_from: int = 0
    rejected_from: int = 0
    rejected_turns: tuple[float, ...] | None = None  # a weight of 0 or more for each turn; None is 1 each


class Imitation(NamedTuple):
    """A trajectory that is imitated, the weight of each of its turns, and its mark (`methods.marks`).

    A turn is a run of agent tokens.
    """

    trajectory: Trajectory
    turns: tuple[float, ...] | None = None  # 0 or more, one for each turn: 0 is not trained; None is 1 each
    mark: str = ""  # that its prompt gets in place of the one it was played under; "" leaves it as it is


class Noted(NamedTuple):
    """Something that an imitation builder met; its phase's record says how often."""

    what: str  # such as "pairs", or why one was dropped


def as_imitation(built: Trajectory | Imitation) -> Imitation:
    """What a builder yields as an imitation: a bare trajectory stands for all of it, as it was played."""
    return built if isinstance(built, Imitation) else Imitation(built)


class Reinforced(NamedTuple):
    """A trajectory with a signed weight for each of its turns: above 0 makes a turn likelier, below 0 rarer.

    A turn is a run of agent tokens.
    """

    trajectory: Trajectory
    advantages: tuple[float, ...]  # one per turn
    anchor_sizes: tuple[int, ...] = ()  # per turn, how many turns were compared with each other; () for none
    first: int = 0  # turn from which on it is reinforced: those before it are not its player's


def by_reward(one: Trajectory, other: Trajectory) -> Preference | None:
    """The pair that prefers the trajectory with more reward; None for a tie, which teaches nothing."""
    if one.reward == other.reward:
        return None
    return Preference(one, other) if one.reward > other.reward else Preference(other, one)


def by_task(trajectories: Iterable[Trajectory]) -> dict[str, list[Trajectory]]:
    """Group trajectories by task, without faults, agents that wrote nothing, and repetitions.

    A repetition has the tokens of an earlier one, and the same of them are the agent's.
    """
    groups: dict[str, dict[tuple[bytes, bytes], Trajectory]] = {}
    for trajectory in sorted(trajectories, key=lambda t: (t.task_id, t.agent, t.sample)):
        if trajectory.finished and trajectory.agent_mask.any():
            key = trajectory.tokens.tobytes(), trajectory.agent_mask.tobytes()
            groups.setdefault(trajectory.task_id, {}).setdefault(key, trajectory)
    return {task_id: list(group.values()) for task_id, group in groups.items()}


def cut_to_expert(
    preference: Preference, expert: Trajectory | None, max_extra_turns: int | None
) -> Preference:
    """Cut the rejected side to the expert's number of turns plus `max_extra_turns`; None never cuts."""
    if expert is None or max_extra_turns is None:
        return preference
    return preference._replace(rejected=cut_turns(preference.rejected, len(expert.turns) + max_extra_turns))


def cut_turns(trajectory: Trajectory, turns: int) -> Trajectory:
    """Keep the first `turns` turns of tokens and text; tokens after the last kept agent token are dropped.

    A turn is a run of agent tokens. The reward stays that of the whole episode.
    """
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    starts = trajectory.agent_mask & ~np.concatenate([[False], trajectory.agent_mask[:-1]])
    if turns >= starts.sum():
        return trajectory
    kept = trajectory.agent_mask & (np.cumsum(starts) <= turns)
    end = int(np.flatnonzero(kept)[-1]) + 1 if kept.any() else 0
    return replace(
        trajectory,
        turns=trajectory.turns[:turns],
        tokens=trajectory.tokens[:end],
        agent_mask=trajectory.agent_mask[:end],
        logps=trajectory.logps[:end],
    )
