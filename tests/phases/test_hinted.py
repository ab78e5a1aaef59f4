"""What is counted of suggestions, by hand."""

from dataclasses import replace

from coevo_jax.methods.distortion import Suggestion
from coevo_jax.phases.hinted import hint_counts, hint_words
from coevo_jax.trajectory import Ending
from tests.methods.spelled import expert, spelled

EXPERT = expert("abc")
MADE = (Suggestion("a"), Suggestion("x", "drop_word"), Suggestion("y", "other_action"))


def played(letters, reward, sample, hints=("a", "x", "y"), **more):
    return spelled("corrector", letters, reward, sample=sample, hints=hints, **more)


EPISODES = [
    played("abc", 1.0, 0),  # agrees, corrects twice: as the expert
    played("bxc", 1.0, 1),  # does not agree, follows, corrects
    played("a.q", 0.0, 2),  # agrees, writes nothing readable, does something else
    played("ab", 0.0, 3, hints=("a", "")),  # suggestions that ended
    spelled("corrector", "abc", 1.0, sample=4, task="u"),  # without an expert
]


def test_what_an_agent_did_with_its_suggestions_is_counted():
    found = hint_counts(EPISODES, {"t": EXPERT}, lambda task_id, sample: MADE if task_id == "t" else ())
    assert found == {
        "episodes": 4,
        "without": 1,
        "suggested": 10,
        "distorted": 6,
        "corrected": 3,
        "followed": 1,
        "agreed": 3,
        "successes": 2,
        "as_expert": 1,
        "by_operation": {"drop_word": 3, "other_action": 3},
    }
    assert hint_words(found) == (
        "6 distorted of 10 suggestions, 3 of them corrected, 1 followed; 3 of the other 4 kept, "
        "1 episodes without an expert"
    )


def test_a_fault_is_no_success():
    fault = replace(EPISODES[0], ending=Ending.FAULT, reward=0.0)
    found = hint_counts([fault], {"t": EXPERT}, lambda task_id, sample: MADE)
    assert (found["episodes"], found["successes"], found["as_expert"]) == (1, 0, 0)
