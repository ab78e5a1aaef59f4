"""Hints: actions that are suggested to an agent in what it is told, turn by turn.

A wording is a text in which `{text}` stands for what the agent is told, the task or an answer, and `{action}`
for the suggested action. What was told without it is what a record keeps; the suggestions stand beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coevo_jax.methods.material import Material
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Trajectory

TEXT, ACTION = "{text}", "{action}"
WORDING = "{text}\nSuggested action: {action}"


@dataclass(frozen=True, kw_only=True)
class Hints:
    """The suggestions of an episode."""

    actions: tuple[str, ...] = ()  # one for each turn; none behind them
    told: tuple[str, ...] | None = None  # what was told before each; suggestions end where it is another text
    wording: str = WORDING

    def at(self, given: Sequence[str], text: str) -> str:
        """The suggestion before the turn behind those that were `given` one; "" for none.

        Args:
          given: the suggestions before the earlier turns.
          text: what the agent is told now.
        """
        turn = len(given)
        if turn >= len(self.actions):
            return ""
        parted = self.told is not None and (text != self.told[turn] or "" in given)
        return "" if parted else self.actions[turn]


NO_HINTS = Hints()


def hinted(text: str, action: str, wording: str) -> str:
    """What an agent is told, with the suggestion; the text itself where the action is ""."""
    return text.join(part.replace(ACTION, action) for part in wording.split(TEXT)) if action else text


def wrong_wording(wording: str) -> str:
    """Why a text is no wording; "" where it is one."""
    for place in (TEXT, ACTION):
        if wording.count(place) != 1:
            return f"found {wording!r}, expected {place} once"
    if wording != wording.strip():
        return f"found {wording!r}, expected no white space at its ends, which chat templates take off"
    return ""


def retold(trajectory: Trajectory, hints: Sequence[str], wording: str, material: Material) -> Trajectory:
    """Tell a trajectory again with other suggestions, "" for none; the agent's tokens are the very tokens.

    A log-probability stays that of what was told when the agent wrote.

    Args:
      hints: one for each turn; none lets the whole be told without.
    """
    import numpy as np  # here: a config is checked by the builders' signatures, and needs no arrays

    chat, mask = material.chat, trajectory.agent_mask
    assert chat is not None  # a phase that learns gives one
    starts = turn_starts(trajectory)
    told = [trajectory.prompt, *(turn.observation for turn in trajectory.turns)]
    tokens: list[int] = []
    own: list[bool] = []
    logps: list[float] = []
    for turn, start in enumerate(starts):
        said = int(np.argmin(np.append(mask[start:], False)))
        action = hints[turn] if hints else ""
        text = hinted(told[turn], action, wording)
        given = chat.observation_ids(text) if turn else chat.prompt_ids(material.system_prompt, text)
        # A turn that stopped at the end of its action's line is closed for the agent.
        closing = [chat.end_id] if turn and tokens[-1] != chat.end_id else []
        given = [*closing, *given]
        tokens += [*given, *trajectory.tokens[start : start + said].tolist()]
        own += [False] * len(given) + [True] * said
        logps += [0.0] * len(given) + trajectory.logps[start : start + said].tolist()
    return replace(
        trajectory,
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array(own, bool),
        logps=np.array(logps, np.float32),
        hints=tuple(hints),
    )
