"""Stored trajectories played again: what is the same, and every kind of difference by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coevo_jax.commands.actions.replay import shown
from coevo_jax.commands.replay import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.envs.env import StepResult, Task
from coevo_jax.methods.marks import marked
from coevo_jax.stored.replay import Difference, play_again
from coevo_jax.trajectory import Branch, Ending, Trajectory, Turn
from tests.letters_env import LettersEnv, LettersOptions
from tests.old_run import unpack

pytestmark = pytest.mark.usefixtures("letters")
MOST = 1000
MARK = "{task} Be right."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("run"))


ENV = LettersEnv(LettersOptions())
TASK = ENV.tasks("train")[3]
WORD = ENV._words[TASK.id]
SPELT = " ".join(WORD)


def turn(action: str, observation: str) -> Turn:
    return Turn(response=f"Action: {action}" if action else "what?", action=action, observation=observation)


def trajectory(*turns: Turn, reward: float, ending: Ending, prompt: str = "Copy", **fields) -> Trajectory:
    nothing = np.zeros(0, np.int32)
    return Trajectory(
        task_id=TASK.id,
        agent="target",
        sample=0,
        prompt=prompt,
        turns=turns,
        reward=reward,
        ending=ending,
        tokens=nothing,
        agent_mask=nothing.astype(bool),
        logps=nothing.astype(np.float32),
        **fields,
    )


LOOK, RIGHT, NOTHING = turn("look", SPELT), turn(WORD, ""), turn("", "Invalid action: no action")
SOLVED = trajectory(LOOK, NOTHING, RIGHT, reward=1.0, ending=Ending.SOLVED)
LIMIT = trajectory(LOOK, LOOK, NOTHING, LOOK, reward=0.0, ending=Ending.TURN_LIMIT)
CUT = trajectory(LOOK, turn("", ""), reward=0.0, ending=Ending.TOKEN_LIMIT)
SAME = {
    "solved": SOLVED,
    "failed": trajectory(turn("zzzz", ""), reward=0.0, ending=Ending.FAILED),
    "turn limit": LIMIT,
    "token limit": CUT,
    "no turn": trajectory(reward=0.0, ending=Ending.TOKEN_LIMIT),
    "under a mark": replace(SOLVED, prompt=marked("Copy", MARK), mark=MARK),
    "a branch that was cut sooner": trajectory(
        *(LOOK, LOOK),
        reward=0.0,
        ending=Ending.TURN_LIMIT,
        branch=Branch(collection="target", sample=0, turns=1, tokens=0),
    ),
}
FIRST = turn("look", "b " + SPELT)
OTHER: dict[str, tuple[Trajectory, Difference]] = {
    "prompt": (
        replace(SOLVED, prompt="Copy it"),
        Difference(turn=None, what="prompt", expected="Copy it", found="Copy"),
    ),
    "no mark": (
        replace(SOLVED, mark=MARK),
        Difference(turn=None, what="prompt", expected="Copy", found="Copy Be right."),
    ),
    "observation": (
        replace(SOLVED, turns=(LOOK, FIRST, RIGHT)),
        Difference(turn=2, what="observation", expected="b " + SPELT, found=SPELT),
    ),
    "ends sooner": (
        trajectory(LOOK, RIGHT, LOOK, LOOK, reward=0.0, ending=Ending.TURN_LIMIT),
        Difference(turn=2, what="end", expected="the episode goes on", found="the episode ends"),
    ),
    "ends later": (
        trajectory(LOOK, LOOK, reward=1.0, ending=Ending.SOLVED),
        Difference(turn=2, what="end", expected="the episode ends", found="the episode goes on"),
    ),
    "ends with a turn that nothing plays": (
        trajectory(LOOK, NOTHING, reward=1.0, ending=Ending.SOLVED),
        Difference(turn=None, what="end", expected="the episode ends", found="the episode goes on"),
    ),
    "reward": (
        replace(SOLVED, reward=0.75, ending=Ending.FAILED),
        Difference(turn=None, what="reward", expected="0.75", found="1.0"),
    ),
    "reward at the limit": (
        replace(LIMIT, reward=0.5),
        Difference(turn=None, what="reward", expected="0.5", found="0.0"),
    ),
    "ending": (
        replace(SOLVED, ending=Ending.FAILED),
        Difference(turn=None, what="ending", expected="failed", found="solved"),
    ),
    "most turns": (
        replace(LIMIT, turns=LIMIT.turns[:3]),
        Difference(turn=None, what="most turns", expected="3", found="4"),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_is_the_same(case):
    assert play_again(ENV, TASK, SAME[case], MOST) is None


@pytest.mark.parametrize("case", OTHER)
def test_what_differs_is_named(case):
    found, difference = OTHER[case]
    assert play_again(ENV, TASK, found, MOST) == difference


@pytest.mark.parametrize("way", ["--threads", "--processes"])
def test_a_run_comes_back(way, run, capsys):
    assert main([str(run), "--episodes", "all", way]) == 0
    said = capsys.readouterr().out.strip().splitlines()[-1]
    where = way.removeprefix("--")
    assert said.endswith(f"played again in {where}: {said.split()[0]} the same, 0 differ, 0 broke")
    assert int(said.split()[0]) > 60


def test_some_are_chosen_by_task_round_agent_and_kind(run, capsys):
    def chosen(*words: str) -> list[dict]:
        assert main([str(run), "--episodes", "all", "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)

    everything = chosen()
    assert {one["kind"] for one in everything} == {"explore", "evaluate", "expert"}
    assert {one["agent"] for one in everything} == {"target", "failure", "expert"}
    explored = chosen("--kind", "explore", "--agent", "failure", "--round", "1")
    keys = {(one["kind"], one["agent"], one["round"]) for one in explored}
    assert keys == {("explore", "failure", 1)} and len(explored) < len(everything)
    task = explored[0]["task"]
    own = chosen("--task", task)
    assert {one["task"] for one in own} == {task} and {one["agent"] for one in own} >= {"target", "failure"}
    assert chosen("--task", task, "--agent", "expert")[0]["where"] == "experts"
    some = json.loads(_printed(capsys, [str(run), "--episodes", "7", "--json"]))
    assert len(some) == 7 and len({one["where"] for one in some}) > 2


def _printed(capsys, words: list[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_a_task_has_a_line_for_each_of_its_trajectories(run, capsys):
    said = _printed(capsys, [str(run), "--task", "train/8"]).splitlines()
    assert all(line.startswith("same     ") and "task train/8" in line for line in said[:-1])
    assert len(said) > 2


class Changed(LettersEnv):
    """Shows the word of one task otherwise than it did, and breaks at another's."""

    def step(self, action: str) -> StepResult:
        answer = super().step(action)
        if action == "look" and self.task.id == "train/8":
            return replace(answer, observation=answer.observation + " x")
        if self.task.id == "train/9":
            raise RuntimeError("no word today")
        return answer

    def reset(self, task: Task) -> str:
        self.task = task
        return super().reset(task)


def test_an_environment_that_changed_is_found_and_what_broke_counts(run, capsys, monkeypatch):
    monkeypatch.setattr("tests.letters_env.make_letters", _changed)
    assert main([str(run), "--task", "train/8", "--task", "train/9", "--task", "train/10"]) == 1
    lines = capsys.readouterr().out.splitlines()
    by_task = {name: [one for one in lines if f"task train/{name}," in one] for name in (8, 9, 10)}
    told = [one for one in by_task[8] if one.startswith("DIFFERS  ")]
    assert told and all(": turn 1: observation: expected '" in one and " x'" in one for one in told)
    assert any(one.startswith("BROKE    ") and "RuntimeError: no word today" in one for one in by_task[9])
    assert by_task[10] and all(one.startswith("same     ") for one in by_task[10])
    assert " broke" in lines[-1] and not lines[-1].endswith(" 0 broke")


def _changed(options: LettersOptions) -> Changed:
    return Changed(options)


def test_evaluations_after_the_run_are_played_again_too(run, tmp_path, capsys):
    found = [one for one in (run / "trajectories" / "round-01").glob("eval-target-*.parquet")] or list(
        (run / "trajectories").rglob("eval-*.parquet")
    )
    folder = run / "evaluations"
    folder.mkdir()
    try:
        write_trajectories(folder / "target-dev.parquet", read_trajectories(found[:1]))
        (folder / "target-dev.json").write_text('{"mark": ""}')
        assert main([str(run), "--kind", "evaluate", "--episodes", "all", "--json"]) == 0
        places = {(one["where"], one["round"]) for one in json.loads(capsys.readouterr().out)}
        assert ("evaluations/target-dev.parquet", None) in places
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--task", "train/8", "--task", "train/1x"], "holds no trajectory of task 'train/1x' .did you mean"),
        (["--round", "7"], "holds no such trajectory; there are rounds .0, 1., agents expert, failure"),
        (["--agent", "falure"], "no such agent .did you mean 'failure'"),
        (["--episodes", "0"], "--episodes: found 0, expected at least 1 or all"),
    ],
)
def test_what_cannot_be_played_is_refused(words, told, run):
    with pytest.raises(ConfigError, match=told):
        main([str(run), *words])


def test_long_texts_are_shown_where_they_differ():
    expected, found = shown("a" * 100 + "b" + "c" * 100, "a" * 100 + "d")
    assert expected == f"...{'a' * 20 + 'b' + 'c' * 39!r}..." and found == f"...{'a' * 20 + 'd'!r}"
    assert shown("x", "y") == ("'x'", "'y'")
