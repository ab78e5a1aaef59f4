"""Revisions against arrays written by hand: pairs, transition points, tokens and weights; and verdicts."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.methods.material import Imitation, Material, Noted
from coevo_jax.methods.pairs_of_paths import bad_paths, shared_turns
from coevo_jax.methods.revisions import THOUGHTS, good_paths, revisions
from coevo_jax.methods.verdicts import ASKED, good_or_bad, verdict_of
from coevo_jax.trajectory import About, Ending, Trajectory, Turn
from tests.methods.spelled import spelled

END = 9


class Chat:
    """One token a letter; a turn ends with END, an answer stands between 7 and 8."""

    end_id = END

    def response_ids(self, text):
        return [*map(ord, text), END]

    def observation_ids(self, observation):
        return [7, *map(ord, observation), 8]


def played(*trajectories, round=1) -> Material:
    return Material(played=(trajectories,), experts={}, chat=Chat(), round=round)


def episode(letters: str, reward: float, sample: int, task: str = "t") -> Trajectory:
    return spelled("target", letters, reward, sample=sample, task=task)


def path(letters: str, reward: float, sample: int, *, ended: bool = True) -> Trajectory:
    """Prompt 1, then a turn of each letter with its end, each answered with "o"."""
    tokens, mask = [1], [False]
    for place, one in enumerate(letters):
        told = [7, ord("o"), 8] if place else []
        tokens += [*told, ord(one), *([END] if ended else [])]
        mask += [*[False] * len(told), True, *([True] if ended else [])]
    turns = tuple(Turn(response=f"say {one}", action=one, observation="o") for one in letters)
    return replace(
        episode(letters, reward, sample),
        turns=turns,
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array(mask),
        logps=np.full(len(tokens), -1, np.float32),
    )


GOOD, BAD = path("abc", 1.0, 0), path("axyz", 0.25, 1)


def made(found):
    return [one for one in found if isinstance(one, Imitation)]


def notes(found) -> dict[str, int]:
    return dict(Counter(one.what for one in found if isinstance(one, Noted)))


def test_a_revision_is_the_bad_beginning_the_thought_and_the_rest_of_the_good_path():
    value = {"transition": "reward", "threshold": 0.3, "thoughts": ("no",)}
    [one] = made(revisions(played(GOOD, BAD), **value))
    said = list(map(ord, "Thought: no\nAction: wait"))
    expected = [
        *(1, ord("a"), END, 7, ord("o"), 8, ord("x"), END),  # the bad path to its first bad turn
        *(7, ord("o"), 8, *said, END),
        *(7, ord("o"), ord("k"), ord("."), 8),
        *(ord("b"), END, 7, ord("o"), 8, ord("c"), END),  # the good one behind what both begin with
    ]
    assert one.trajectory.tokens.tolist() == expected and one.trajectory.tokens.dtype == np.int32
    agent = "-aa---aa---" + "a" * len(said) + "a" + "-----" + "aa---aa"
    assert "".join("a" if own else "-" for own in one.trajectory.agent_mask) == agent
    assert one.turns == (0.0, 0.0, 1.0, 1.0, 1.0)
    assert [turn.action for turn in one.trajectory.turns] == ["a", "x", "wait", "b", "c"]
    assert one.trajectory.turns[2] == Turn(
        response="Thought: no\nAction: wait", action="wait", observation="ok."
    )
    assert (one.trajectory.reward, one.trajectory.ending, one.trajectory.branch) == (1.0, Ending.SOLVED, None)
    assert (one.trajectory.sample, one.trajectory.logps.tolist()) == (1, [0.0] * len(expected))


def test_a_turn_that_stopped_before_its_end_is_closed_for_the_agent():
    bad = path("ax", 0.0, 1, ended=False)
    [one] = made(revisions(played(GOOD, bad), transition="direct", thoughts=("no",)))
    assert one.trajectory.tokens[:7].tolist() == [1, ord("a"), 7, ord("o"), 8, ord("x"), END]
    assert one.trajectory.agent_mask[:8].tolist() == [False, True, False, False, False, True, False, False]
    assert one.turns == (0.0, 0.0, 1.0, 1.0, 1.0)


def test_texts_of_the_recipes_own_are_taken():
    [one] = made(
        revisions(played(GOOD, BAD), transition="direct", action="stop", answer="so", thoughts=("!",))
    )
    assert one.trajectory.turns[4] == Turn(
        response="Thought: !\nAction: stop", action="stop", observation="so"
    )


def cuts(found) -> list[tuple[int, str]]:
    """Of each revision the bad path, and all that is done in it."""
    return [
        (one.trajectory.sample, "".join(t.action[0] for t in one.trajectory.turns)) for one in made(found)
    ]


# Behind "ax" the mean is 0.35, behind "axy" 0.25, behind "axq" 0.45.
TREE = (GOOD, BAD, path("axq", 0.45, 2))


def test_the_first_turn_of_a_low_value_is_the_transition_by_reward():
    found = list(revisions(played(*TREE), transition="reward", threshold=0.4, beta=0.6))
    assert cuts(found) == [(1, "axwbc")]
    assert notes(found) == {"pairs": 1, "cut behind turn 2": 1}
    assert cuts(revisions(played(*TREE), transition="reward", threshold=0.3, beta=0.6)) == [(1, "axywbc")]


def test_a_path_without_a_bad_turn_is_dropped_and_counted():
    found = list(revisions(played(*TREE), transition="reward", threshold=0.2))
    assert cuts(found) == [] and notes(found) == {"pairs": 2, "no bad action": 2}


def test_the_same_revision_is_made_once():
    found = list(revisions(played(*TREE), transition="reward", threshold=0.4))
    assert cuts(found) == [(1, "axwbc")]  # both bad paths are cut behind "ax"
    assert notes(found) == {"pairs": 2, "the same again": 1, "cut behind turn 2": 1}


def test_direct_revision_keeps_the_whole_bad_path():
    assert cuts(revisions(played(GOOD, BAD), transition="direct")) == [(1, "axyzwbc")]


def test_what_both_paths_share_is_not_looked_at():
    goods = path("abc", 1.0, 0), path("axc", 1.0, 3)
    answers = [verdict(BAD, 0, "Bad"), verdict(BAD, 1, "Bad"), verdict(BAD, 3, "bad.")]
    found = list(revisions(played(*goods, BAD, *answers)))
    assert cuts(found) == [(1, "axwbc"), (1, "axyzwc")]


def verdict(about: Trajectory, turn: int, text: str, ending=Ending.ANSWERED) -> Trajectory:
    answer = replace(
        episode("?", 0.0, 100 + turn),
        turns=(Turn(response=text, action="", observation=""),) if text else (),
        ending=ending,
        about=About(collection="target", sample=about.sample, turn=turn),
        collection="verdicts",
    )
    return answer


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["Good", "Bad", "Bad"], [(1, "axywbc")]),
        (["Bad", "Good", "Bad"], [(1, "axwbc")]),
        (["Uncertain", "Good", "it is bad, I fear"], [(1, "axyzwbc")]),
        (["Good", "", "??"], []),
    ],
)
def test_the_first_bad_action_by_the_actor_is_kept(answers, expected):
    said = [verdict(BAD, turn, text) for turn, text in enumerate(answers, start=1)]
    found = list(revisions(played(GOOD, BAD, *said)))
    assert cuts(found) == expected
    assert notes(found).get("no bad action", 0) == (not expected)


def test_a_verdict_is_of_whoever_did_and_saw_the_same():
    other = path("axyw", 0.0, 2)
    found = revisions(played(GOOD, BAD, other, verdict(BAD, 2, "Bad")))
    assert cuts(found) == [(1, "axywbc")]
    assert cuts(revisions(played(GOOD, BAD, other, verdict(BAD, 3, "Bad")))) == [(1, "axyzwbc")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Good", "good"), ("BAD.", "bad"), ("Not badly done", "uncertain"), ("uncertain, not bad", "uncertain")],
)
def test_the_first_label_of_an_answer_counts(text, expected):
    assert verdict_of(text) == expected


def pairs_of(material, alpha=(0.5, 0.7, 1.0), beta=0.2):
    return [(one.path.sample, [b.sample for b in one.better]) for one in bad_paths(material, alpha, beta)]


REWARDS = [episode("abcd"[n], reward, n) for n, reward in enumerate((0.0, 0.6, 0.8, 1.0))]


def test_thresholds_rise_with_the_rounds_and_the_last_one_stays():
    assert pairs_of(played(*REWARDS, round=1)) == [(0, [3, 2, 1]), (1, [3])]  # 0.8 - 0.6 is not above 0.2
    assert pairs_of(played(*REWARDS, round=2)) == [(0, [3, 2]), (1, [3])]
    for late in (3, 4):
        assert pairs_of(played(*REWARDS, round=late)) == [(0, [3]), (1, [3])]  # 1 is a success, above nothing
    assert pairs_of(played(*REWARDS), beta=0.19) == [(0, [3, 2, 1]), (1, [3, 2]), (2, [3])]
    assert [one.sample for one in good_paths(played(*REWARDS))] == [3, 2, 1]
    assert [one.sample for one in good_paths(played(*REWARDS, round=2), per_task=1)] == [3]


def test_paths_of_the_same_tokens_are_one_and_what_was_not_finished_is_none():
    again, fault = episode("d", 1.0, 5), episode("e", 0.0, 6)
    fault = replace(fault, ending=Ending.FAULT)
    assert pairs_of(played(*REWARDS, again, fault)) == pairs_of(played(*REWARDS))


def test_a_tasks_revisions_are_limited_each_bad_path_first():
    paths = [path("abc", 1.0, 0), path("ad", 0.9, 1), path("xy", 0.0, 2), path("zz", 0.1, 3)]
    every = revisions(played(*paths), transition="direct")
    assert cuts(every) == [(2, "xywabc"), (3, "zzwabc"), (2, "xywad"), (3, "zzwad")]
    found = list(revisions(played(*paths), transition="direct", per_task=3))
    assert cuts(found) == [(2, "xywabc"), (3, "zzwabc"), (2, "xywad")]
    assert notes(found) == {"pairs": 4, "more than per_task": 1, "cut behind turn 2": 3}


def test_thoughts_are_drawn_by_a_seed_and_both_paths():
    def thoughts(seed):
        bad = [path("x" * (1 + n), 0.0, 1 + n) for n in range(12)]
        return [
            one.trajectory.turns[len(one.trajectory.turns) - 4].response
            for one in made(revisions(played(GOOD, *bad), transition="direct", draw_seed=seed))
        ]

    assert thoughts(1) == thoughts(1) != thoughts(2)
    assert {one.removeprefix("Thought: ").split("\n")[0] for one in thoughts(1)} <= set(THOUGHTS)
    assert len(set(thoughts(1))) > 1


def test_every_action_is_asked_about_once_from_where_paths_part():
    other = path("axyw", 0.0, 2)
    found = list(good_or_bad(played(GOOD, BAD, other)))
    assert [(one.trajectory.sample, one.turn) for one in found] == [(1, 1), (1, 2), (1, 3), (2, 3)]
    assert found[1].text == f"p\nAction: a\no\nAction: x\no\n\nLast action: y\nAnswer: o\n\n{ASKED}"
    assert list(good_or_bad(played(BAD, other))) == []  # nobody did better


def test_where_no_action_was_found_the_text_stands_in_the_question():
    mute = replace(path("q", 0.0, 2), turns=(Turn(response="hm", action="", observation="what?"),))
    [one] = good_or_bad(played(GOOD, mute), instruction="Well?")
    assert one.text == "p\n\nLast action: hm\nAnswer: what?\n\nWell?"


def test_shared_turns_have_the_same_text_and_answer():
    told = replace(BAD, turns=(replace(BAD.turns[0], observation="other"), *BAD.turns[1:]))
    assert (shared_turns(GOOD, BAD), shared_turns(GOOD, told), shared_turns(BAD, BAD)) == (1, 0, 4)
