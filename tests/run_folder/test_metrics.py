"""The log can be cut back and resumed, tolerates a killed writer, and is there for whoever looks on."""

import math

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.run_folder.metrics import MetricsLog, finalize, metric_series, read_metrics


def write(log: MetricsLog, steps) -> None:
    for step in steps:
        log.write(step, "round-01/learn_target", {"target/loss": 1 / step})


def test_lines_are_read_as_written(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(3, "warm_start", {"target/loss": 0.5, "target/logps/chosen": -12.25})
    assert read_metrics(log.path) == [
        {"phase": "warm_start", "step": 3, "values": {"target/loss": 0.5, "target/logps/chosen": -12.25}}
    ]


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    with MetricsLog(tmp_path / "whole.jsonl") as log:
        write(log, range(1, 9))
    with MetricsLog(tmp_path / "killed.jsonl") as log:
        write(log, range(1, 5))
        committed = log.offset()
        write(log, range(5, 8))
    with open(tmp_path / "killed.jsonl", "ab") as file:
        file.write(b'{"phase": "round-01/lea')
    with MetricsLog(tmp_path / "killed.jsonl") as log:
        log.truncate(committed)
        assert log.offset() == committed
        write(log, range(5, 9))
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_offset_is_what_is_on_disk(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    write(log, [1])
    assert log.offset() == (tmp_path / "metrics.jsonl").stat().st_size > 0
    log.close()
    log.close()


def test_a_log_shorter_than_its_commit_is_an_error(tmp_path):
    with (
        MetricsLog(tmp_path / "metrics.jsonl") as log,
        pytest.raises(ConfigError, match=r"0 bytes.* 7"),
    ):
        log.truncate(7)


def test_a_broken_last_line_is_left_out_and_a_broken_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = b'{"phase": "p", "step": 1, "values": {"a": 1.0}}\n'
    path.write_bytes(good + b'{"phase": "p", "st')
    assert len(read_metrics(path)) == 1
    path.write_bytes(good + b'{"phase": "p"}\n' + good)
    with pytest.raises(ConfigError, match=r"metrics\.jsonl:2: expected a JSON object"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_opening_a_log_drops_a_half_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"phase": "p", "step": 1, "values": {}}\n{"pha')
    with MetricsLog(path) as log:
        log.write(2, "p", {"a": 1.0})
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_values_that_are_not_finite_survive_as_nan(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, "p", {"a": math.nan, "b": math.inf, "c": 1.0})
    assert "NaN" not in log.path.read_text() and "Inf" not in log.path.read_text()
    values = read_metrics(log.path)[0]["values"]
    assert math.isnan(values["a"]) and math.isnan(values["b"]) and values["c"] == 1.0


def test_finalize_divides_and_leaves_out_what_has_no_denominator():
    assert finalize({"a": (3.0, 4.0), "b": (0.0, 2.0), "c": (0.0, 0.0)}) == {"a": 0.75, "b": 0.0}


def test_steps_grow_on_where_a_phase_counts_anew():
    lines = [
        {"phase": phase, "step": step, "values": {"loss": 1.0}}
        for phase, steps in (("round-01", (1, 2, 3)), ("round-02", (1, 2)), ("round-03", (1, 2)))
        for step in steps
    ]
    assert [x for x, _, _ in metric_series(lines)["loss"]] == [1, 2, 3, 4, 5, 6, 7]
    lines = [{"phase": p, "step": s, "values": {"loss": 1.0}} for p, s in (("a", 10), ("a", 20), ("b", 30))]
    assert [x for x, _, _ in metric_series(lines)["loss"]] == [10, 20, 30]


def test_a_line_is_there_for_others_when_it_is_written_and_followers_hear_it(tmp_path):
    log, heard = MetricsLog(tmp_path / "metrics.jsonl"), []
    log.followers.append(lambda step, phase, values: heard.append((step, phase, values)))
    log.write(3, "p", {"a": 0.5, "b": math.inf})
    assert [line["step"] for line in read_metrics(log.path)] == [3]
    [(step, phase, values)] = heard
    assert (step, phase, values["a"]) == (3, "p", 0.5) and math.isnan(values["b"])
    log.close()
