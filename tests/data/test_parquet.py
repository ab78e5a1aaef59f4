import dataclasses

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import SCHEMA, read_trajectories, shard_name, write_trajectories
from coevo_jax.trajectory import Ending, Trajectory, Turn


def trajectory(**changes):
    fields = {
        "task_id": "db/1",
        "agent": "target",
        "sample": 2,
        "prompt": "Question: é?",
        "turns": (Turn(response="Action: a", action="a", observation="日"),),
        "reward": 0.1 + 0.2,
        "ending": Ending.FAILED,
        "tokens": np.array([1, 5, 7], np.int32),
        "agent_mask": np.array([False, True, True]),
        "logps": np.array([0.0, -0.1, -1e-30], np.float32),
    }
    return Trajectory(**(fields | changes))


def assert_same(left, right):
    for field in dataclasses.fields(Trajectory):
        a, b = getattr(left, field.name), getattr(right, field.name)
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_every_field_comes_back_exactly(tmp_path):
    written = [trajectory(ending=ending) for ending in Ending]
    written.append(trajectory(turns=(), tokens=np.zeros(0, np.int32), agent_mask=np.zeros(0, bool),
                              logps=np.zeros(0, np.float32)))  # fmt: skip
    path = tmp_path / "round-01" / shard_name("target", 0, 1)
    write_trajectories(path, written)
    for left, right in zip(read_trajectories([path]), written, strict=True):
        assert_same(left, right)
    assert [child.name for child in path.parent.iterdir()] == ["target-00000-of-00001.parquet"]


@given(st.floats(0, 1), st.text(), st.lists(st.floats(width=32, allow_nan=False), max_size=5))
def test_any_numbers_and_text_come_back(tmp_path_factory, reward, text, logps):
    length = len(logps)
    written = trajectory(
        reward=reward,
        prompt=text,
        tokens=np.arange(length, dtype=np.int32),
        agent_mask=np.ones(length, bool),
        logps=np.array(logps, np.float32),
    )
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    write_trajectories(path, [written])
    assert_same(read_trajectories([path])[0], written)


def test_shards_are_read_in_the_given_order_and_an_empty_one_is_no_error(tmp_path):
    paths = [tmp_path / shard_name("target", index, 3) for index in range(3)]
    for path, count in zip(paths, (1, 0, 2), strict=True):
        write_trajectories(path, [trajectory(task_id=f"{path.name}/{index}") for index in range(count)])
    read = [one.task_id.split("-")[1] for one in read_trajectories(list(reversed(paths)))]
    assert read == ["00002", "00002", "00000"]


def test_a_failed_write_leaves_the_old_shard_alone(tmp_path):
    path = tmp_path / "a.parquet"
    write_trajectories(path, [trajectory()])
    before = path.read_bytes()
    with pytest.raises(pa.ArrowException):
        write_trajectories(path, [trajectory(sample="many")])
    assert path.read_bytes() == before


def test_a_missing_a_broken_and_a_foreign_file_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.parquet: no such file"):
        read_trajectories([tmp_path / "gone.parquet"])
    good = tmp_path / "good.parquet"
    write_trajectories(good, [trajectory()] * 50)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"cut\.parquet: cannot be read"):
        read_trajectories([good, tmp_path / "cut.parquet"])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(ConfigError, match=r"foreign\.parquet: schema version: found none, expected 1"):
        read_trajectories([tmp_path / "foreign.parquet"])
    pq.write_table(pq.read_table(good).drop_columns(["reward"]), tmp_path / "columns.parquet")
    with pytest.raises(ConfigError, match=r"columns\.parquet: columns"):
        read_trajectories([tmp_path / "columns.parquet"])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ending", "bored", "ending: found 'bored', expected one of solved"),
        ("reward", -0.5, r"reward: found -0.5, expected a number in \[0, 1\]"),
        ("logps", [0.0], r"found lengths \[3, 3, 1\]"),
    ],
)
def test_a_broken_row_is_named(tmp_path, column, value, message):
    path = tmp_path / "rows.parquet"
    write_trajectories(path, [trajectory(), trajectory()])
    rows = pq.read_table(path).to_pylist()
    rows[1][column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    with pytest.raises(ConfigError, match=rf"rows\.parquet: row 1: .*{message}"):
        read_trajectories([path])


def test_shards_open_with_datasets(tmp_path):
    """All shards are one data set, with the rows that were written."""
    shards = [[trajectory(), trajectory(sample=3, turns=())], [trajectory(agent="failure")]]
    for index, written in enumerate(shards):
        write_trajectories(tmp_path / shard_name("all", index, 2), written)
    files, cache = str(tmp_path / "all-*.parquet"), str(tmp_path / "cache")
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert data.column_names == SCHEMA.names
    assert list(data["sample"]) == [2, 3, 2]
    assert list(data["agent"]) == ["target", "target", "failure"]
    assert data[0] == {
        "task_id": "db/1",
        "agent": "target",
        "sample": 2,
        "prompt": "Question: é?",
        "turns": [{"response": "Action: a", "action": "a", "observation": "日"}],
        "reward": 0.1 + 0.2,
        "ending": "failed",
        "tokens": [1, 5, 7],
        "agent_mask": [False, True, True],
        "logps": [0.0, float(np.float32(-0.1)), float(np.float32(-1e-30))],
    }
