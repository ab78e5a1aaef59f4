"""TFDS sets: written and read without TensorFlow, every row as it was."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange import Conversation, Message, Problems, Speaker, open_set, read_records
from coevo_jax.data.interchange.tfds_sets import find_set, to_conversation, to_trajectory, write_experts
from coevo_jax.data.interchange.tfds_sets import write_trajectory_set as write_trajectories
from coevo_jax.trajectory import Ending, Trajectory, Turn

CONVERSATIONS = [
    Conversation(
        id="a/é",
        system_prompt="Sys\n",
        acknowledgement="OK then",
        messages=(
            Message(speaker=Speaker.HUMAN, text=""),
            Message(speaker=Speaker.GPT, text="日本", skipped=True),
            Message(speaker=Speaker.GPT, text="x" * 70_000),
        ),
        reward=0.1 + 0.2,
        extra={"deep": [1, {"b": None}]},
    ),
    Conversation(id="b", messages=(Message(speaker=Speaker.GPT, text="y"),)),
    Conversation(id="b", messages=(Message(speaker=Speaker.GPT, text="z"),), reward=0.0),
]


def trajectory(length, **changes):
    fields = {
        "task_id": "t/é",
        "agent": "failure",
        "sample": length,
        "prompt": "Do",
        "turns": (Turn(response="r", action="a", observation=""),) * length,
        "reward": 1 / 3,
        "ending": Ending.TURN_LIMIT,
        "tokens": np.arange(length, dtype=np.int32),
        "agent_mask": np.arange(length) % 2 == 0,
        "logps": np.linspace(-1e-30, -3.3, length, dtype=np.float32),
    }
    return Trajectory(**fields | changes)


def same(one, other):
    arrays = ("tokens", "agent_mask", "logps")
    plain = [name for name in vars(one) if name not in arrays]
    return [getattr(one, name) for name in plain] == [getattr(other, name) for name in plain] and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in arrays
    )


def test_experts_come_back_in_order_through_tfds_own_door(tmp_path):
    folder = write_experts(tmp_path / "set", CONVERSATIONS, "dev")
    source = tfds.builder_from_directory(str(folder)).as_data_source(split="dev")
    assert [to_conversation(row) for row in source] == CONVERSATIONS
    assert to_conversation(source[2]) == CONVERSATIONS[2]
    row = source[0]
    assert row["messages"]["text"][1].decode() == "日本"
    assert row["messages"]["learned"] == [True, False, True]
    assert row["reward"] == pytest.approx(0.3)
    assert find_set(tmp_path) is None or find_set(tmp_path) == folder
    assert find_set(tmp_path / "set") == find_set(folder) == folder
    assert {path.suffix for path in folder.iterdir()} == {".json", ".array_record-00000-of-00001"}
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["coevo_experts"]
    assert "tensorflow" not in sys.modules


def test_trajectories_come_back_in_order(tmp_path):
    rows = [trajectory(3), trajectory(0), trajectory(1, reward=1.0, ending=Ending.SOLVED)]
    folder = write_trajectories(tmp_path, iter(rows))
    source = tfds.builder_from_directory(str(folder)).as_data_source(split="train")
    assert len(source) == 3
    assert all(same(to_trajectory(row), made) for row, made in zip(source, rows, strict=True))
    opened = open_set(str(tmp_path))
    assert opened.format == "tfds-trajectories"
    assert [where for where, _ in read_records(opened, Problems("refuse"))][1] == f"{tmp_path}: row 1"


def test_a_set_is_never_overwritten_and_foreign_ones_are_named(tmp_path):
    write_experts(tmp_path / "a", CONVERSATIONS)
    with pytest.raises(ConfigError, match="there is a TFDS set already"):
        write_experts(tmp_path / "a", CONVERSATIONS)
    with pytest.raises(ConfigError, match="no rows to write"):
        write_experts(tmp_path / "b", [])
    with pytest.raises(ConfigError, match=r"found no split 'test' \(valid: train\)"):
        open_set(str(tmp_path / "a"), None, "test")
    with pytest.raises(ConfigError, match="found tfds-experts, expected tfds-trajectories"):
        open_set(str(tmp_path / "a"), "tfds-trajectories")
    shard = next((tmp_path / "a").rglob("*.array_record*"))
    whole = shard.read_bytes()
    for content in (whole[:-500], b"", None):
        if content is None:
            shard.unlink()
        else:
            shard.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be opened as a TFDS set"):
            open_set(str(tmp_path / "a"))
