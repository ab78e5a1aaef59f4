"""What environments answer to an agent's own actions, to be foretold: an implicit world model."""

from collections.abc import Iterator
from dataclasses import replace

from coevo_jax.methods.material import Chat, Imitation, Material, cut_turns
from coevo_jax.methods.own_steps import OwnStep, Same, own_steps
from coevo_jax.trajectory import Trajectory


def next_observations(material: Material, *, same: Same | None = "action") -> Iterator[Imitation]:
    """The answers to the agent's own actions at the states of experts, which the agent learns to foretell.

    The implicit world model of Early Experience (arXiv 2510.08558): of a state, an action and the answer to
    it, the answer's tokens alone are trained on, here with what the chat template writes around them. An
    answer without text teaches nothing, nor does a turn that was cut off.

    Args:
      same: own actions that are the expert's are left out, by the action or by the whole text; null keeps
        them (inferred: the paper samples other actions).
    """
    assert material.chat is not None  # a phase that learns gives one
    for step in own_steps(material):
        if step.own.observation.strip() and (same is None or step.differs(same)):
            yield Imitation(_foretold(step, material.chat))


def _foretold(step: OwnStep, chat: Chat) -> Trajectory:
    """The branch up to the answer to its own step, whose tokens are all that its mask has."""
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    before = cut_turns(step.branch, step.turn + 1)
    closing = [] if before.tokens[-1] == chat.end_id else [chat.end_id]
    told = chat.observation_ids(step.own.observation)
    given = len(before.tokens) + len(closing)
    return replace(
        before,
        tokens=np.concatenate([before.tokens, np.array([*closing, *told], np.int32)]),
        agent_mask=np.arange(given + len(told)) >= given,
        logps=np.zeros(given + len(told), np.float32),
    )
