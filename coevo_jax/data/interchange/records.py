"""The records in data files, whatever their format: conversations and pairs of them, as text.

A conversation is a system prompt and messages of two speakers, in any order. ETO's files have no system role:
there the first human message is the instruction, the agent answers "OK", and the task follows. Reading folds
these two messages into the system prompt, and writing unfolds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from coevo_jax.envs.env import parse_response
from coevo_jax.trajectory import SOLVED_REWARD, Demonstration, Trajectory, Turn

ACKNOWLEDGEMENT = "OK"
LONGEST_ACKNOWLEDGEMENT = 200  # characters; a longer one is an answer, not a nod
FINAL_OBSERVATION = "final_observation"  # key of what the environment said after the last turn


class Speaker(StrEnum):
    """The writer of a message, by ETO's names."""

    HUMAN = "human"  # the user or the environment
    GPT = "gpt"  # the agent


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message. The agent's are learned from unless `skipped` (a loss flag of false)."""

    speaker: Speaker
    text: str
    skipped: bool = False  # False for what was only heard, too
    extra: dict[str, Any] | None = field(default=None, compare=False)  # other keys, plain JSON values


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One row of a set of conversations."""

    id: str
    messages: tuple[Message, ...]  # without system prompt and acknowledgement
    system_prompt: str = ""
    acknowledgement: str = ACKNOWLEDGEMENT  # what the agent answers to the system prompt where files need it
    reward: float | None = None  # in [0, 1]
    extra: dict[str, Any] = field(default_factory=dict)  # the row's other keys, plain JSON values
    layout: str = field(default="", compare=False, repr=False)  # how its file had it, in words


@dataclass(frozen=True, kw_only=True)
class TextPair:
    """One row of a set of preferences: two ways to go on after the same messages."""

    id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    system_prompt: str = ""
    acknowledgement: str = ACKNOWLEDGEMENT
    extra: dict[str, Any] = field(default_factory=dict)
    layout: str = field(default="", compare=False, repr=False)


Record = Conversation | TextPair | Trajectory


def is_acknowledgement(message: Message) -> bool:
    """Whether an agent's message only accepts an instruction: a short "OK…" without an action."""
    if message.speaker is not Speaker.GPT or len(message.text) > LONGEST_ACKNOWLEDGEMENT:
        return False
    if "Action:" in message.text:
        return False
    return message.text.lstrip().lower().startswith("ok")


def fold_instruction(messages: Sequence[Message]) -> tuple[str, str, tuple[Message, ...]]:
    """Split off instruction and acknowledgement; returns (system prompt, acknowledgement, the rest).

    The system prompt is empty where the messages do not begin with human, "OK", human.
    """
    messages = tuple(messages)
    if len(messages) >= 3:
        first, second, third = messages[:3]
        humans = first.speaker is Speaker.HUMAN and third.speaker is Speaker.HUMAN
        if humans and first.text and is_acknowledgement(second):
            return first.text, second.text, messages[2:]
    return "", ACKNOWLEDGEMENT, messages


def unfold_instruction(
    system_prompt: str, acknowledgement: str, messages: Sequence[Message]
) -> tuple[Message, ...] | None:
    """Put instruction and acknowledgement before the messages; None where `fold_instruction` would differ."""
    messages, whole = tuple(messages), tuple(messages)
    if system_prompt:
        head = (
            Message(speaker=Speaker.HUMAN, text=system_prompt),
            Message(speaker=Speaker.GPT, text=acknowledgement, skipped=True),
        )
        whole = (*head, *messages)
    folded = fold_instruction(whole)
    expected = (system_prompt, acknowledgement if system_prompt else ACKNOWLEDGEMENT, messages)
    return whole if folded == expected else None


def to_demonstration(conversation: Conversation) -> tuple[Demonstration, tuple[bool, ...]]:
    """The conversation as task and turns, and which turns are to be learned from.

    Human messages in a row are joined by a line break; between two of the agent's in a row stands an empty
    observation. A conversation that the agent begins has an empty prompt. A text of the agent without
    "Action:" is its action as it stands. Without a reward the conversation counts as solved, as in ETO's
    expert sets.
    """
    heard: list[str] = []
    prompt: str | None = None
    spoken: list[Message] = []
    observations: list[str] = []
    for message in conversation.messages:
        if message.speaker is Speaker.HUMAN:
            heard.append(message.text)
            continue
        if prompt is None:
            prompt = "\n".join(heard)
        else:
            observations.append("\n".join(heard))
        heard = []
        spoken.append(message)
    final = conversation.extra.get(FINAL_OBSERVATION, "")
    observations.append("\n".join([*heard, *([final] if isinstance(final, str) and final else [])]))
    turns = tuple(
        Turn(response=message.text, action=action_of(message.text), observation=observation)
        for message, observation in zip(spoken, observations, strict=True)
    )
    demonstration = Demonstration(
        task_id=conversation.id,
        prompt=prompt or "",
        turns=turns,
        reward=SOLVED_REWARD if conversation.reward is None else conversation.reward,
    )
    return demonstration, tuple(not message.skipped for message in spoken)


def action_of(response: str) -> str:
    """The action an environment would receive for an agent's text."""
    parsed = parse_response(response)
    return parsed[1] if parsed else response.strip()


def from_demonstration(
    demonstration: Demonstration, system_prompt: str, extra: dict[str, Any]
) -> Conversation:
    """An expert's solution as a conversation that ends with the agent's last message."""
    final = demonstration.turns[-1].observation if demonstration.turns else ""
    return Conversation(
        id=demonstration.task_id,
        messages=_messages(demonstration.prompt, demonstration.turns),
        system_prompt=system_prompt,
        reward=demonstration.reward,
        extra=extra | ({FINAL_OBSERVATION: final} if final else {}),
    )


def from_trajectory(trajectory: Trajectory, system_prompt: str) -> Conversation:
    """A trajectory's text; tokens, masks and log-probabilities are left behind.

    Raises:
      ValueError: the episode broke, or the agent wrote nothing in a turn.
    """
    if not trajectory.finished:
        raise ValueError(
            f"the environment broke in this episode (ending {trajectory.ending}): no example of anything"
        )
    for number, turn in enumerate(trajectory.turns):
        if not turn.response.strip():
            raise ValueError(f"turn {number}: the agent wrote nothing")
    if not trajectory.turns:
        raise ValueError("no turn: nothing to learn from")
    demonstration = Demonstration(
        task_id=trajectory.task_id,
        prompt=trajectory.prompt,
        turns=trajectory.turns,
        reward=trajectory.reward,
    )
    extra = {"agent": trajectory.agent, "sample": trajectory.sample, "ending": trajectory.ending.value}
    conversation = from_demonstration(demonstration, system_prompt, extra)
    if trajectory.agent_mask.any():
        return conversation
    unlearned = tuple(replace(m, skipped=m.speaker is Speaker.GPT) for m in conversation.messages)
    return replace(conversation, messages=unlearned)


def _messages(prompt: str, turns: Sequence[Turn]) -> tuple[Message, ...]:
    messages = [Message(speaker=Speaker.HUMAN, text=prompt)]
    for index, turn in enumerate(turns):
        messages.append(Message(speaker=Speaker.GPT, text=turn.response))
        if index < len(turns) - 1:
            messages.append(Message(speaker=Speaker.HUMAN, text=turn.observation))
    return tuple(messages)
