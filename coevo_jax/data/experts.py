"""Expert demonstrations as trajectories, and their text for training a tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from coevo_jax.data.chat.format import ChatFormat, render
from coevo_jax.data.interchange.convert import render_conversation
from coevo_jax.data.interchange.records import Conversation, to_demonstration
from coevo_jax.envs.env import Env, Task
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Ending, Trajectory


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The experts of some tasks, and how many of the tasks have none that can be used."""

    trajectories: tuple[Trajectory, ...]
    missing: int  # tasks without an expert, or rows in which nothing is to be learned from
    too_long: int  # experts beyond the longest trajectory that fits


def load_experts(
    env: Env,
    chat: ChatFormat,
    tasks: Sequence[Task],
    *,
    max_tokens: int,
    agent: str = "expert",
    stand_ins: Mapping[str, Demonstration] = MappingProxyType({}),
) -> Experts:
    """Render the expert of every task, in the order of `tasks`; those beyond `max_tokens` are left out.

    Log-probabilities are 0: no model of ours wrote these tokens.

    Args:
      stand_ins: solutions by task id that take an expert's place where the environment has none.
    """
    trajectories, missing, too_long = [], 0, 0
    for task in tasks:
        demonstration = env.expert(task) or stand_ins.get(task.id)
        if demonstration is None:
            missing += 1
            continue
        tokens, agent_mask = render(chat, env.system_prompt, demonstration.prompt, demonstration.turns)
        if len(tokens) > max_tokens:
            too_long += 1
            continue
        trajectories.append(
            Trajectory(
                task_id=task.id,
                agent=agent,
                sample=0,
                prompt=demonstration.prompt,
                turns=demonstration.turns,
                reward=demonstration.reward,
                ending=Ending.SOLVED if demonstration.reward >= SOLVED_REWARD else Ending.FAILED,
                tokens=tokens,
                agent_mask=agent_mask,
                logps=np.zeros(len(tokens), np.float32),
            )
        )
    return Experts(trajectories=tuple(trajectories), missing=missing, too_long=too_long)


def expert_texts(env: Env, tasks: Sequence[Task]) -> Iterator[str]:
    """Yield every message of the experts' conversations, as often as training sees it."""
    for task in tasks:
        demonstration = env.expert(task)
        if demonstration is None:
            continue
        if env.system_prompt:
            yield env.system_prompt
        yield from _texts(demonstration)


def load_imported(
    conversations: Sequence[Conversation], chat: ChatFormat, system_prompt: str, *, max_tokens: int
) -> Experts:
    """Render an imported expert set; rows beyond `max_tokens` are left out.

    Every conversation gets `system_prompt`, the environment's, in place of its own: the agent will play under
    that one. `agent_mask` leaves out turns that the set marks as not to be learned from.
    """
    rendered = [render_conversation(chat, row, system_prompt) for row in conversations]
    kept = tuple(trajectory for trajectory in rendered if len(trajectory.tokens) <= max_tokens)
    return Experts(trajectories=kept, missing=0, too_long=len(rendered) - len(kept))


def best_of_tasks(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The best conversation of each task that earned a reward; of equal ones the first, in their order.

    One without a reward counts as solved.
    """
    best: dict[str, Conversation] = {}
    for row in conversations:
        if _reward(row) > max(0.0, _reward(best[row.id]) if row.id in best else 0.0):
            best[row.id] = row
    return [row for row in conversations if best.get(row.id) is row]


def _reward(row: Conversation) -> float:
    return SOLVED_REWARD if row.reward is None else row.reward


def imported_texts(conversations: Sequence[Conversation], system_prompt: str) -> Iterator[str]:
    """Yield every message of an imported set's conversations, as often as training sees it."""
    for row in conversations:
        if system_prompt:
            yield system_prompt
        demonstration, _ = to_demonstration(row)
        yield from _texts(demonstration)


def _texts(demonstration: Demonstration) -> Iterator[str]:
    yield demonstration.prompt
    for index, turn in enumerate(demonstration.turns):
        yield turn.response
        if index < len(demonstration.turns) - 1:
            yield turn.observation
