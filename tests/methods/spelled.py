"""Trajectories written by hand: a turn is one letter, a token of the agent behind one of the environment."""

import numpy as np

from coevo_jax.methods.material import Material
from coevo_jax.trajectory import Branch, Ending, Trajectory, Turn


def spelled(
    agent: str, letters: str, reward: float, *, sample: int = 0, task: str = "t", **more
) -> Trajectory:
    """An episode with a turn of each letter; "." is one without an action."""
    turns = [
        Turn(response=f"say {one}", action="" if one == "." else one, observation="o") for one in letters
    ]
    tokens = [code for one in letters for code in (0, ord(one))]
    return Trajectory(
        **{"ending": Ending.SOLVED if reward >= 1 else Ending.FAILED, "collection": agent} | more,
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="p",
        turns=tuple(turns),
        reward=reward,
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array([False, True] * len(letters)),
        logps=np.zeros(len(tokens), np.float32),
    )


def left(
    parent: Trajectory, turn: int, letters: str, reward: float, *, sample: int = 0, into="branches", **more
):
    """A branch that leaves an episode before a turn, and goes on with the letters."""
    beginning = "".join(chr(token) for token in parent.tokens[1 : 2 * turn : 2])
    place = Branch(
        collection=parent.collection or parent.agent, sample=parent.sample, turns=turn, tokens=2 * turn + 1
    )
    more = {"collection": into, "branch": place} | more
    return spelled("agent", beginning + letters, reward, sample=sample, task=parent.task_id, **more)


def expert(letters: str, reward: float = 1.0, task: str = "t") -> Trajectory:
    return spelled("expert", letters, reward, task=task, collection="")


def material(*played, experts=()) -> Material:
    return Material(played=tuple(played), experts={one.task_id: one for one in experts})
