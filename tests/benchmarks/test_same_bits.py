"""What the comparison of two runs counts as equal, and where it says that they differ."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.same_bits import KINDS, compare, count, difference, renamed
from tests.old_run import unpack


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "a[1]: b: 2, then 3"),
        ({"a": [1, 2]}, {"a": [1]}, "a: 2 entries, then 1"),
        ({"a": 1}, {}, "a: only in the old run"),
        ({}, {"a": 1}, "a: only in the new run"),
        ({"a": 1}, {"a": 1.0}, "a: 1, then 1.0"),
        ({"a": 0.0}, {"a": -0.0}, "a: 0.0, then -0.0"),
        ({"a": None}, {"a": 0}, "a: None, then 0"),
        ({"a": np.float32([1, 2])}, {"a": np.float32([1, 2.0000002])}, "a: value 1: "),
        ({"a": np.zeros(2)}, {"a": np.zeros(2, np.float32)}, "a: float64(2,), then float32(2,)"),
        ({"a": np.float32([0])}, {"a": np.float32([-0.0])}, "a: value 0: "),
    ],
)
def test_a_difference_is_named_where_it_is(old, new, words):
    assert (difference(old, new, "") or "").startswith(words)


def test_what_is_equal_bit_by_bit_is_equal():
    values = {"a": [float("nan"), {"b": "c"}], "d": np.float32([np.nan, 1.5])}
    assert difference(values, {"a": [float("nan"), {"b": "c"}], "d": np.float32([np.nan, 1.5])}, "") is None
    assert count(values) == 4


def test_names_are_those_of_the_new_side():
    assert renamed({"pairs/one.jsonl": 1}, {"one": "two"}) == {"pairs/two.jsonl": 1}


def found(old: Path, new: Path, *added: str) -> dict[str, str]:
    return {kind: words for kind, _, words in compare(old, new, {}, added) if words}


@pytest.mark.slow
def test_two_runs_are_compared_in_every_kind_of_record_but_times(tmp_path):
    old, new = (unpack(tmp_path / side) for side in ("old", "new"))
    sizes = {kind: size for kind, size, _ in compare(old, new, {})}
    assert sizes.keys() == KINDS.keys() and min(sizes.values()) > 0
    results = json.loads((new / "results.json").read_text())
    results["phases"][0]["seconds"] += 1
    results["config"]["name"] = "other"
    results["agents"] = ["target"]
    (new / "results.json").write_text(json.dumps(results))
    assert found(old, new) == {"results": "agents: only in the new run"}
    assert not found(old, new, "results:agents")
    lines = (new / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["values"]["warm_start/tokens_per_second"] *= 2
    first["values"]["warm_start/loss"] += 1e-9
    (new / "metrics.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    assert found(old, new, "results:agents")["metrics"].startswith(
        "metrics.jsonl:1: values: warm_start/loss: "
    )
