"""What followed a first error, every case written by hand, and what each environment calls an error."""

import numpy as np
import pytest

from coevo_jax.envs.env import error_test, says_invalid
from coevo_jax.episode_stats.after_error import (
    FOLLOWED,
    first_error,
    played_turns,
    sum_up_errors,
    tokens_behind,
    what_followed,
)
from coevo_jax.episode_stats.summary import summarize
from coevo_jax.rollout.lane import MALFORMED
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.letters_env import LettersEnv, LettersOptions

BAD, GOOD = "Invalid action: no such word.", "You see a door."


def episode(
    *turns: tuple[str, str], ending: Ending = Ending.FAILED, reward: float | None = None
) -> Trajectory:
    """Turns of (action, observation); the k-th turn has k + 1 agent tokens, before two of the observation."""
    mask = [False, False]
    for number in range(len(turns)):
        mask += [True] * (number + 1) + [False] * 2
    return Trajectory(
        task_id="t",
        agent="target",
        sample=0,
        prompt="",
        turns=tuple(Turn(response=action, action=action, observation=told) for action, told in turns),
        reward=reward if reward is not None else float(ending is Ending.SOLVED),
        ending=ending,
        tokens=np.zeros(len(mask), np.int32),
        agent_mask=np.array(mask),
        logps=np.zeros(len(mask), np.float32),
    )


SOLVED, LIMIT, CUT = Ending.SOLVED, Ending.TURN_LIMIT, Ending.TOKEN_LIMIT


@pytest.mark.parametrize(
    ("followed", "one"),
    [
        ("recovered", episode(("x", BAD), ("y", GOOD), ("end", ""), ending=SOLVED)),
        ("recovered", episode(("x", BAD), ("end", ""), ending=SOLVED)),  # not given up: it was solved
        ("recovered", episode(("x", BAD), ("y", BAD), ("end", ""), ending=SOLVED)),
        ("recovered", episode(("x", BAD), ("y", GOOD), ending=LIMIT, reward=1.0)),
        ("repeated", episode(("x", BAD), ("x", BAD), ("y", GOOD), ("end", ""), ending=SOLVED)),
        ("repeated", episode(("x", BAD), ("x", BAD))),
        ("repeated", episode(("", MALFORMED), ("", MALFORMED), ending=LIMIT)),  # twice no action at all
        ("gave_up", episode(("x", BAD), ("submit", "Submitted."))),
        ("gave_up", episode(("look", GOOD), ("x", BAD), ("submit", BAD))),
        ("went_on", episode(("x", BAD), ("x ", BAD), ("submit", ""))),  # another text is another action
        ("went_on", episode(("x", BAD), ("y", GOOD), ending=LIMIT)),  # a limit, not the agent, ended it
        ("went_on", episode(("x", BAD), ("y", GOOD), ("", ""), ending=CUT)),
        ("went_on", episode(("x", BAD), ("y", ""), ending=CUT)),  # played: its answer found no room
        ("went_on", episode(("x", BAD), ("y", BAD), ending=LIMIT, reward=1.0)),  # nothing worked after it
        ("cut_off", episode(("look", GOOD), ("x", BAD), ending=LIMIT)),
        ("cut_off", episode(("x", BAD), ("", ""), ending=CUT)),  # cut while it wrote
        ("cut_off", episode(("", MALFORMED), ("", ""), ending=CUT)),
        ("cut_off", episode(("look", GOOD), ("x", BAD))),  # the error itself ended the episode
    ],
)
def test_what_followed(followed, one):
    error = first_error(one, says_invalid)
    assert error == next(i for i, turn in enumerate(one.turns) if turn.observation in (BAD, MALFORMED))
    assert what_followed(one, error, says_invalid) == followed
    assert sum_up_errors([one], says_invalid)[followed] == 1


def test_an_episode_without_an_error_or_a_turn_has_none():
    assert first_error(episode(("x", GOOD), ("y", "")), says_invalid) is None
    empty = episode(ending=CUT)
    assert (first_error(empty, says_invalid), played_turns(empty)) == (None, 0)


def test_tokens_behind_belong_to_later_turns():
    one = episode(("a", GOOD), ("b", BAD), ("c", GOOD), ("d", BAD))  # 1, 2, 3 and 4 tokens
    assert [tokens_behind(one, turn) for turn in range(4)] == [9, 7, 4, 0]
    begins = Trajectory(**{**vars(one), "agent_mask": one.agent_mask[2:]})
    assert [tokens_behind(begins, turn) for turn in range(4)] == [9, 7, 4, 0]


def test_sums_by_hand():
    episodes = [
        episode(("a", BAD), ("b", GOOD), ("c", "")),  # 6 tokens, 5 behind
        episode(("a", GOOD), ("b", BAD), ("c", "")),  # 6 tokens, 3 behind
        episode(("a", GOOD), ("b", GOOD)),  # 3 tokens, no error
        episode(("a", BAD), ("a", BAD), ("c", ""), ending=SOLVED),
        episode(("a", BAD), ("b", ""), ending=SOLVED),
        episode(("a", ""), ending=SOLVED),
        episode(("a", BAD), ("b", GOOD), ("c", GOOD), ending=Ending.FAULT),  # counts nowhere
    ]
    found = summarize(episodes, hard_negative_threshold=0.6, seed=0)["after_error"]
    assert found is not None
    counts = {key: found[key] for key in FOLLOWED}
    assert counts == {"recovered": 1, "repeated": 1, "gave_up": 1, "went_on": 1, "cut_off": 0}
    assert found["episodes"] == sum(counts.values())
    assert (found["successes"], found["success_rate"]) == (2, pytest.approx(2 / 3))
    assert found["failure_tokens_behind"] == pytest.approx(8 / 15)


def test_nothing_played_has_no_shares():
    found = sum_up_errors([], says_invalid)
    assert (found["episodes"], found["success_rate"], found["failure_tokens_behind"]) == (0, None, None)


class Own(LettersEnv):
    def is_error(self, observation):
        return observation == "no"


def test_an_invalid_action_is_an_error_everywhere_and_what_else_the_environment_says():
    answers = (BAD, MALFORMED, "no", "")
    told = {env: list(map(error_test(env(LettersOptions())), answers)) for env in (LettersEnv, Own)}
    assert told == {LettersEnv: [True, True, False, False], Own: [True, True, True, False]}
