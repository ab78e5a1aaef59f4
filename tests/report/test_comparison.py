"""Intervals over seeds and paired differences, by hand; runs that cannot be compared."""

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.episode_stats.summary import summarize
from coevo_jax.report.comparison import compare, interval
from tests.report.made_run import empty_results

EMPTY = summarize([], hard_negative_threshold=0.6, seed=0)


def run(method: str, seed: int, rewards, split: str = "test"):
    results = empty_results(f"{method}-{seed}", method, seed, len(rewards) - 1)
    for number, reward in enumerate(rewards):
        entry = {**EMPTY, "mean_reward": reward, "success_rate": reward / 2}
        results["evaluations"].append({"round": number, "agent": "target", "split": split, **entry})
    return results


def test_interval_is_students():
    found = interval({0: 0.1, 1: 0.2, 2: 0.6})
    assert found["mean"] == pytest.approx(0.3)
    half = 4.302653 * 0.2645751 / 3**0.5  # t(0.975, 2 degrees) x deviation / root of n
    assert found["low"] == pytest.approx(0.3 - half, abs=1e-6)
    assert found["high"] == pytest.approx(0.3 + half, abs=1e-6)


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert interval({4: 0.5}) == {"mean": 0.5, "low": None, "high": None, "values": {4: 0.5}}
    assert interval({})["mean"] is None


def test_final_best_and_paired_differences():
    runs = [run("eto", 1, [0.1, 0.5, 0.4]), run("coevo", 0, [0.1, 0.6, 0.8])]
    runs += [run("coevo", 1, [0.1, 0.7, 0.6]), run("eto", 0, [0.1, 0.5, 0.6]), run("eto", 7, [0.1, 0.9, 0.9])]
    found = compare(runs)
    coevo, eto = sorted(found["methods"], key=lambda row: row["method"])
    assert coevo["seeds"] == [0, 1] and eto["seeds"] == [0, 1, 7]
    assert coevo["measures"]["final_reward"]["mean"] == pytest.approx(0.7)
    assert coevo["measures"]["best_reward"]["mean"] == pytest.approx(0.75)
    assert found["leads"] == ["target"] and found["others"] == []  # no other agent was evaluated
    assert coevo["rounds"][1]["mean"] == pytest.approx(0.65)
    (difference,) = found["differences"]
    assert (difference["method"], difference["other"]) == ("coevo", "eto")
    assert difference["final"]["values"] == pytest.approx({0: 0.2, 1: 0.2})  # seed 7 has no partner
    assert difference["final"]["low"] == pytest.approx(0.2) == difference["final"]["high"]
    assert difference["best"]["values"] == pytest.approx({0: 0.2, 1: 0.2})


def test_runs_that_do_not_compare_are_refused():
    with pytest.raises(ConfigError, match=r"2 runs of method eto have seed 0: eto-0, eto-0"):
        compare([run("eto", 0, [0.1]), run("eto", 0, [0.2])])
    with pytest.raises(ConfigError, match="different splits"):
        compare([run("eto", 0, [0.1]), run("coevo", 0, [0.2], split="dev")])
    other = run("coevo", 0, [0.1]) | {"env": "scienceworld"}
    with pytest.raises(ConfigError, match="different environments cannot be compared: intercode_sql, sci"):
        compare([run("eto", 0, [0.1]), other])
