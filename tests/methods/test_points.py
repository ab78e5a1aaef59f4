"""Where branching leaves episodes, by hand."""

import numpy as np
import pytest

from coevo_jax.methods.material import Material
from coevo_jax.methods.points import expert_turns, failed_turns, turn_ends
from coevo_jax.methods.turns import turn_starts
from coevo_jax.trajectory import Branch, Ending, Trajectory, Turn


def episode(agent, turns, task="t", sample=0, reward=1.0, replayed=0) -> Trajectory:
    """One prompt token, then a token of the agent and one of the environment for each turn but the last."""
    length = 2 * turns
    branch = Branch(collection="a", sample=0, turns=replayed, tokens=2 * replayed + 1)
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="p",
        turns=tuple(Turn(response=f"r{n}", action=f"a{n}", observation=f"o{n}") for n in range(turns)),
        reward=reward,
        ending=Ending.SOLVED if reward >= 1 else Ending.FAILED,
        tokens=np.arange(length, dtype=np.int32) + 100 * sample,
        agent_mask=np.arange(length) % 2 == 1,
        logps=np.zeros(length, np.float32),
        branch=branch if replayed else None,
    )


def places(points):
    return [(one.trajectory.task_id, one.trajectory.sample, one.turn) for one in points]


def test_turns_start_where_runs_of_agent_tokens_do():
    assert turn_starts(episode("expert", 3)).tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("turns", "count", "expected"),
    [
        (4, None, [0, 1, 2, 3]),
        (12, 5, [2, 4, 6, 8, 10]),  # floor(12 / 6) = 2
        (17, 5, [2, 4, 6, 8, 10]),
        (6, 5, [1, 2, 3, 4, 5]),
        (4, 5, [1, 2, 3]),  # shorter than the number of states: every one but the start
        (1, 5, []),
    ],
)
def test_states_of_an_expert_are_equally_spaced(turns, count, expected):
    material = Material(played=(), experts={"t": episode("expert", turns)})
    assert [turn for _, _, turn in places(expert_turns(material, count=count))] == expected


def test_the_tasks_start_is_left_out():
    material = Material(played=(), experts={"t": episode("expert", 3), "s": episode("expert", 2, "s")})
    assert places(expert_turns(material, first=1)) == [("s", 0, 1), ("t", 0, 1), ("t", 0, 2)]


def test_failures_alone_are_left_in_the_middle_and_never_where_they_were_replayed():
    played = [
        episode("a", 3, reward=0.5),
        episode("a", 3, sample=1),
        episode("a", 4, sample=2, reward=0.0, replayed=2),
    ]
    material = Material(played=(played,), experts={})
    assert places(failed_turns(material)) == [("t", 0, 0), ("t", 0, 1), ("t", 0, 2), ("t", 2, 2), ("t", 2, 3)]
    assert places(failed_turns(material, first=1, count=1)) == [("t", 0, 1), ("t", 2, 2)]


def test_a_turns_value_is_sought_behind_it_and_a_last_turns_is_known():
    own = episode("a", 4, sample=3, reward=0.0, replayed=1)
    last = episode("a", 3, sample=4, reward=0.0, replayed=2)
    material = Material(played=([own, last],), experts={"t": episode("expert", 3)})
    assert places(turn_ends(material)) == [("t", 0, 1), ("t", 0, 2), ("t", 3, 2)]
    assert places(turn_ends(material, experts=False)) == [("t", 3, 2)]
