"""Tasks are tasks: what contradicts it is found at the start and while a run plays; pairs are refused."""

import json

import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs.env import Task
from coevo_jax.envs.same_task import contradiction, meant_actions
from coevo_jax.phases.proof import of_sides, replayed
from coevo_jax.run_folder.manifest import read_manifest
from coevo_jax.run_folder.run import create_run
from coevo_jax.trajectory import Ending, Trajectory, Turn
from tests.audit.breaking import finished, states
from tests.changing_env import ChangingEnv, ChangingOptions
from tests.tiny import tiny_config

CHANGING = "env.name=tests.changing_env:make_changing"


@pytest.fixture(autouse=True)
def unplayed():
    ChangingEnv.resets.clear()


def turns(*texts):
    """Turns out of "action answer" texts."""
    pairs = [text.partition(" ")[::2] for text in texts]
    return [Turn(response=action, action=action, observation=answer) for action, answer in pairs]


def test_where_two_roll_outs_contradict_each_other():
    same = turns("look abc", "go there")
    assert contradiction("p", same, "p", same) is None
    found = contradiction("p", same, "q", same)
    assert found is not None and found.turn == -1 and found.words.endswith("found 'q', expected 'p'")
    found = contradiction("p", same, "p", turns("look xyz", "go there"))
    assert found is not None and (found.turn, found.action, found.found) == (0, "look", "xyz")
    assert "turn 1, action 'look': found 'xyz', expected 'abc'" in found.words
    # They have parted before: what comes after says nothing.
    assert contradiction("p", turns("look abc", "a 1", "b 2"), "p", turns("look abc", "c 1", "b 9")) is None
    # A last turn of one side that was cut, or whose answer a set of data does not have.
    assert contradiction("p", turns("look "), "p", same) is None
    assert contradiction("p", turns("look ", "go there"), "p", same) is not None
    assert contradiction("p", same[:1], "p", same) is None


def trajectory(*texts, prompt="Copy", reward=0.0, mark=""):
    return Trajectory(
        task_id="train/0",
        agent="target",
        sample=0,
        prompt=prompt,
        turns=tuple(turns(*texts)),
        reward=reward,
        ending=Ending.FAILED,
        tokens=np.zeros(4, np.int32),
        agent_mask=np.ones(4, bool),
        logps=np.zeros(4, np.float32),
        mark=mark,
    )


def test_first_observations_are_compared_under_one_mark():
    one, other = trajectory("a 1"), trajectory("a 1", prompt="Copy it", mark="{task} it")
    assert of_sides(one, other) is None
    assert of_sides(one, trajectory("a 1", prompt="Copy it")) is not None


def test_a_trajectory_that_is_played_again():
    env = ChangingEnv(ChangingOptions(steady=1))
    task = Task(id="train/0", split="train", family="copy")
    env.reset(task)
    word = env.step("look").observation
    ChangingEnv.resets.clear()
    right = word.replace(" ", "")
    whole = trajectory(f"look {word}", f"{right} ", reward=1.0)
    assert replayed(env, task, whole, 1000) is None
    again = replayed(env, task, whole, 1000)  # the second reset: another word
    assert again is not None and (again.turn, again.expected) == (0, word)
    ChangingEnv.resets.clear()
    blind = replayed(env, task, trajectory(f"{right} ", reward=0.5), 1000)
    assert blind is not None and blind.words.endswith("found 'reward 1', expected 'reward 0.5'")


def test_actions_that_may_mean_something():
    class Offers:
        def tries(self, task, rng):
            return "wait"

        def offered(self, observation):
            return ["look"]

    task, rng = Task(id="t", split="train", family="f"), np.random.default_rng([0])
    prompt = 'Guess 4 digits, as in [1 2 3 4], or say "pass".'
    assert meant_actions(ChangingEnv(ChangingOptions()), task, prompt, rng) == ("4", "[1 2 3 4]", "pass")
    assert meant_actions(Offers(), task, "Go.", rng) == ("wait", "look")  # pyright: ignore
    assert meant_actions(ChangingEnv(ChangingOptions()), task, "Go.", rng) == ("look", "help", "1")


def test_a_task_that_changes_at_every_reset_stops_the_run_at_its_start(tmp_path):
    options = (CHANGING, "env.options.steady=0", "warm_start.epochs=1")
    message = (
        r"letters: task train/\d+ is another task at every reset: turn 1, action 'look': found '.*compare"
    )
    run = create_run(tiny_config(tmp_path, *options))
    try:
        with pytest.raises(ConfigError, match=message):
            coevolve(run)
    finally:
        run.close()


@pytest.mark.slow
def test_pairs_of_two_tasks_are_refused_named_and_audited(tmp_path, capsys):
    """Four resets of each proven task in the first explorations, and two of the others, are steady."""
    run = finished(tmp_path, CHANGING, "env.options.steady=3", "explore.tasks=['40:52']")
    found = states(run)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}
    records = {record.name: record.records for record in read_manifest(run).done}
    assert records["prepare"]["deterministic"] is True
    several = records["round-01/explore_hard_negatives"]["contradicted"]
    assert several and all("expected" in words for words in several.values())
    refused = records["round-01/learn_target"]["refused_pairs"]
    assert sum(refused.values()) > 0
    lines = (run / "pairs" / "round-01-target.jsonl").read_text().splitlines()
    paired = {json.loads(line)["task_id"] for line in lines}
    assert not paired & set(several)
    assert "tasks are not the same at every reset" in " ".join(capsys.readouterr().out.split())
