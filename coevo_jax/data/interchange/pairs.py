"""Preference pairs out of conversations, and conversations out of pairs.

Two conversations are compared only where both answer the same prompt of the same task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b

from coevo_jax.data.interchange.records import Conversation, Message, Speaker, TextPair
from coevo_jax.trajectory import SOLVED_REWARD

INVENTED = "prompt-"
LABEL = "label"  # key of whether an answer is a good one, as KTO's rows have it


def prompt_text(messages: Iterable[Message]) -> str:
    """The messages before the agent's first one, as one text."""
    heard = []
    for message in messages:
        if message.speaker is Speaker.GPT:
            break
        heard.append(message.text)
    return "\n".join(heard)


def invented_id(prompt: str, index: int) -> str:
    """An id for a row that has none: the same for equal prompts, in whatever file they stand.

    It ends in digits, as a numbered task's does. A row without a prompt is named by its place.
    """
    if not prompt:
        return f"row-{index}"
    return f"{INVENTED}{int.from_bytes(blake2b(prompt.encode(), digest_size=8).digest())}"


def is_invented(row_id: str, prompt: str) -> bool:
    """Whether an id was made from the prompt: then equal rows are none the less different ones."""
    return row_id.startswith(INVENTED) and row_id == invented_id(prompt, 0)


def chosen_side(pair: TextPair) -> Conversation:
    """The chosen conversation of a pair."""
    return Conversation(
        id=pair.id,
        messages=pair.prompt + pair.chosen,
        system_prompt=pair.system_prompt,
        acknowledgement=pair.acknowledgement,
        extra=pair.extra,
        layout=pair.layout,
    )


def pair_up(conversations: Sequence[Conversation]) -> list[TextPair]:
    """Pair the best conversation of every task with each of its worse ones; ties are no preference.

    A task is an id together with a prompt: equal ids of different prompts, and rows without any prompt, are
    not compared. A conversation without a reward counts as solved. The prompt is what stands before the
    better one's first agent message.
    """
    tasks: dict[tuple[str, str], list[Conversation]] = {}
    for conversation in conversations:
        prompt = prompt_text(conversation.messages)
        if prompt:
            tasks.setdefault((conversation.id, prompt), []).append(conversation)
    alike = (group for rows in tasks.values() for group in _by_system_prompt(rows))
    return [pair for group in alike for pair in _best_over_worse(group)]


def _by_system_prompt(rows: list[Conversation]) -> list[list[Conversation]]:
    """Rows under one system prompt; those without any join the others where there is only one."""
    groups: dict[str, list[Conversation]] = {}
    for row in rows:
        groups.setdefault(row.system_prompt, []).append(row)
    return [rows] if len(groups.keys() - {""}) < 2 else list(groups.values())


def _best_over_worse(rows: list[Conversation]) -> list[TextPair]:
    best = max(rows, key=_reward)
    prompt, chosen = _split_prompt(best.messages)
    pairs = []
    for worse in rows:
        if _reward(worse) < _reward(best):
            rejected = _split_prompt(worse.messages)[1]
            if worse.extra.get(LABEL) is False:  # not to be imitated, but here it is only compared
                rejected = tuple(replace(message, skipped=False) for message in rejected)
            pairs.append(
                TextPair(
                    id=best.id,
                    prompt=prompt,
                    chosen=chosen,
                    rejected=rejected,
                    system_prompt=best.system_prompt or worse.system_prompt,
                    acknowledgement=best.acknowledgement,
                    extra={"chosen_reward": _reward(best), "rejected_reward": _reward(worse)},
                )
            )
    return pairs


def _reward(conversation: Conversation) -> float:
    return SOLVED_REWARD if conversation.reward is None else conversation.reward


def _split_prompt(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Messages before the agent's first one, and from it to the agent's last one."""
    spoken = [index for index, message in enumerate(messages) if message.speaker is Speaker.GPT]
    return messages[: spoken[0]], messages[spoken[0] : spoken[-1] + 1]
