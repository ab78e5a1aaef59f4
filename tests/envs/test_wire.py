"""What a child process sends is data: records come back as they were, anything else is a fault."""

import os
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from coevo_jax.envs.env import EnvFault, StepResult, Task
from coevo_jax.envs.wire import from_bytes, plain, to_bytes
from coevo_jax.trajectory import Demonstration, Ending, Turn

TASK = Task(id="a/1", split="train", family="f")
TURN = Turn(response="Action: a", action="a", observation="é")
RECORDS = [
    *(None, True, 1.5, float("inf"), "text", b"\x00", [1, "a"], {"a": (1, 2)}, TASK, [TASK, TASK]),
    StepResult(observation="seen", done=True, reward=0.5),
    Demonstration(task_id="a/1", prompt="p", turns=(TURN,), reward=1.0),
    ("fault", "it broke"),
    Ending.FAULT,
]


class Calls:
    """Calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.called = (function, arguments)

    def __reduce__(self):
        return self.called


@dataclass
class Foreign:
    value: int = 1


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_records_come_back(record):
    assert from_bytes(to_bytes(record)) == record


def test_a_fault_comes_back():
    found = from_bytes(to_bytes({3: EnvFault("gone")}))[3]
    assert type(found) is EnvFault and str(found) == "gone"


@pytest.mark.parametrize(
    "sent",
    [
        Calls(os.mkdir, "made"),
        Calls(print, "said"),
        Calls(getattr, Task, "__init__"),
        Foreign(),
        np.float64(1.0),
        {"deep": [(Calls(os.mkdir, "made"),)]},
    ],
    ids=["a function", "a builtin", "a way to one", "another's record", "numpy's", "deep inside"],
)
def test_nothing_else_is_made_or_called(sent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvFault, match=r"its answer (holds|cannot be read)"):
        from_bytes(pickle.dumps(sent))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"\x80", b"no pickle", pickle.dumps(TASK)[:-3]])
def test_broken_bytes_are_a_fault(content):
    with pytest.raises(EnvFault, match="its answer cannot be read"):
        from_bytes(content)


def test_numbers_and_words_of_other_packages_become_plain():
    answer = StepResult(observation=np.str_("seen"), done=np.bool_(True), reward=np.float32(0.5))
    found = plain(answer)
    assert [type(value) for value in (found.observation, found.done, found.reward)] == [str, bool, float]
    assert plain([np.int64(3), "a", (np.float64(1),)]) == [3, "a", (1.0,)]
