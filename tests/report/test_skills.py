"""The table of skills against episodes written by hand."""

import numpy as np

from coevo_jax.envs.env import says_invalid
from coevo_jax.envs.players import Lesson, PlayerHabits, Players
from coevo_jax.report.skills import measure_skills, skills_table
from coevo_jax.trajectory import Ending, Trajectory, Turn

PLAYERS = Players(
    habits=PlayerHabits,
    stream="test",
    check=lambda options: None,
    lesson=lambda options, habits, seed, episodes: Lesson(options=options, habits=habits, episodes=episodes),
    play=lambda env, task, habits, rng: None,
    skills=lambda prompt, turns: {"greeted": turns[0].action == "hello"} if prompt else {},
    skill_words={"greeted": "began with hello"},
)


def episode(name, reward, *actions, ending=None, prompt="Speak"):
    """An episode whose answer to "bad" is an error."""
    turns = tuple(
        Turn(response=action, action=action, observation="Invalid action" if action == "bad" else "")
        for action in actions
    )
    mask = np.ones(len(actions), bool)
    return Trajectory(
        task_id=name,
        agent="target",
        sample=0,
        prompt=prompt,
        turns=turns,
        reward=reward,
        ending=ending or (Ending.SOLVED if reward == 1 else Ending.FAILED),
        tokens=np.zeros(len(actions), np.int32),
        agent_mask=mask,
        logps=np.zeros(len(actions), np.float32),
    )


def test_the_table_counts_what_episodes_show():
    episodes = [
        episode("a", 1.0, "hello", "end"),
        episode("b", 1.0, "bad", "end"),
        episode("c", 0.55, "bad", "end"),
        episode("d", 0.0, "bad", "bad", "bad", ending=Ending.TURN_LIMIT),
        episode("e", 0.5, "hello", "end", prompt=""),
    ]
    measured = measure_skills(episodes, PLAYERS, says_invalid, seed=0, hard_negative_threshold=0.5)
    assert measured["shown"] == {"greeted": (1, 4)}
    low, high = measured["summary"]["mean_reward_ci"]
    lines = skills_table(PLAYERS, {"base": measured}).splitlines()
    assert lines[0] == "|  | base |"
    assert dict(tuple(line.strip("| ").split(" | ")) for line in lines[2:]) == {
        "episodes": "5",
        "mean reward (95 % interval over tasks)": f"0.610 ({low:.3f} to {high:.3f})",
        "solved": "40.0% (2 of 5)",
        "began with hello": "25.0% (1 of 4)",
        "met an error": "60.0% (3 of 5)",
        "– of these, solved the task after it": "33.3% (1 of 3)",
        "– of these, did the same again": "33.3% (1 of 3)",
        "– of these, ended the episode": "33.3% (1 of 3)",
        "– of these, went on, unsolved": "0.0% (0 of 3)",
        "– of these, was cut off": "0.0% (0 of 3)",
        "cut by the limit of tokens or turns": "20.0% (1 of 5)",
        "turns": "2.2",
        "failures by reward, tenths from 0": "1 0 0 0 0 2 0 0 0 0",
    }


def test_a_skill_that_never_shows_has_no_share():
    measured = measure_skills(
        [episode("a", 1.0, "end", prompt="")], PLAYERS, says_invalid, seed=0, hard_negative_threshold=0.5
    )
    assert "| began with hello | – |" in skills_table(PLAYERS, {"base": measured})
