"""An agent's reasons for what experts did, learned as thoughts before the experts' actions."""

from collections.abc import Iterator
from dataclasses import replace

from coevo_jax.methods.material import Chat, Imitation, Material
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Ending, Trajectory

MARKER = "Action:"


def reflections(material: Material, *, cut_off: bool = False) -> Iterator[Imitation]:
    """The experts' actions behind the agent's own reasons for them, at the states that it was asked about.

    Self-reflection of Early Experience (arXiv 2510.08558): the reason and the action are one turn, "Thought:
    reason" and "Action: action", and that turn alone is trained on. An answer that gives no reason is left
    out. What follows an "Action:" in an answer is no reason (inferred).

    Args:
      cut_off: what was written of an answer that a limit of tokens cut off is a reason, too (inferred: it is
        left out).
    """
    assert material.chat is not None  # a phase that learns gives one
    endings = (Ending.ANSWERED, Ending.TOKEN_LIMIT) if cut_off else (Ending.ANSWERED,)
    for played in material.played:
        for answer in sorted(played, key=lambda one: (one.task_id, one.sample)):
            expert = material.expert(answer.task_id)
            if expert is None or answer.about is None or answer.ending not in endings or not answer.turns:
                continue
            reason = reason_of(answer.turns[0].response)
            if answer.about.collection == expert.agent and reason:
                yield _thought(answer, expert, answer.about.turn, reason, material.chat)


def reason_of(text: str) -> str:
    """What an answer gives as a reason: without the name of a thought, and without an action."""
    return text.partition(MARKER)[0].strip().removeprefix("Thought:").strip()


def _thought(answer: Trajectory, expert: Trajectory, turn: int, reason: str, chat: Chat) -> Imitation:
    """The expert up to a turn that the reason begins; it keeps the answer's name."""
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    taken = expert.turns[turn]
    response = f"Thought: {reason}\n{MARKER} {taken.action}"
    said = replace(taken, response=response)
    ids = chat.response_ids(response)
    start = int(turn_starts(expert)[turn])
    trajectory = replace(
        expert,
        agent=answer.agent,
        sample=answer.sample,
        collection=answer.collection,
        turns=(*expert.turns[:turn], said),
        tokens=np.concatenate([expert.tokens[:start], np.array(ids, np.int32)]),
        agent_mask=np.concatenate([expert.agent_mask[:start], np.ones(len(ids), bool)]),
        logps=np.zeros(start + len(ids), np.float32),
    )
    return Imitation(trajectory, (*[0.0] * turn, 1.0))
