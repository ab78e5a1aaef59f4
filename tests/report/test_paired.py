"""Differences paired by task: by hand, against the formula for equal clusters, and what cannot be paired."""

import re
import shutil

import numpy as np
import pytest
from scipy import stats

from coevo_jax.commands.report import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.report.markdown import paired_table
from coevo_jax.report.paired import TaskRewards, clustered, pair_with_baseline, read_task_rewards
from coevo_jax.run_folder.results import load_results
from coevo_jax.trajectory import Ending, Trajectory
from tests.report.made_run import empty_results, make_run


def run(method: str, seed: int, rewards: dict[str, float | None], **changes) -> TaskRewards:
    results = empty_results(f"{method}-{seed}", method, seed, 1)
    results["config"] |= {"env": {"options": changes.pop("options", {})}}
    return TaskRewards(results=results, rewards=rewards)


def test_two_seeds_and_three_tasks_by_hand():
    runs = [
        run("eto", 0, {"a": 0.5, "b": 0.0, "c": 1.0}),
        run("eto", 1, {"a": 0.7, "b": 0.4, "c": 0.4}),
        run("sft-more", 0, {"a": 0.2, "b": 0.3, "c": 1.0}),
        run("sft-more", 1, {"a": 0.3, "b": 0.4, "c": 0.4}),
    ]
    found = pair_with_baseline(runs)
    assert found["baseline"] == "sft-more" and found["unpaired"] == []
    [row] = found["rows"]
    # by task: (0.3, 0.4), (-0.3, 0.0), (0.0, 0.0); by seed: 0, 0.4 / 3; mean of all 0.4 / 6
    assert row["seeds"]["values"] == pytest.approx({0: 0.0, 1: 0.4 / 3})
    mean = 0.4 / 6
    assert row["tasks"]["mean"] == pytest.approx(mean) == row["seeds"]["mean"]
    sums = [0.7 - 2 * mean, -0.3 - 2 * mean, -2 * mean]
    error = (3 / 2 * sum(x * x for x in sums)) ** 0.5 / 6
    half = 4.302653 * error  # t(0.975, 2 degrees)
    assert row["tasks"]["low"] == pytest.approx(mean - half, abs=1e-6)
    assert row["tasks"]["high"] == pytest.approx(mean + half, abs=1e-6)
    assert (row["tasks"]["tasks"], row["faults"]) == (3, 0)
    deviation = 0.4 / 3 / 2**0.5
    assert row["seeds"]["high"] == pytest.approx(mean + 12.7062 * deviation / 2**0.5, abs=1e-5)


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_clusters_give_the_interval_of_the_tasks_means(seeds):
    values = np.random.default_rng([seeds]).normal(size=(seeds, 40))
    found = clustered({s: {f"t{i}": float(x) for i, x in enumerate(row)} for s, row in enumerate(values)})
    means = values.mean(0)
    low, high = stats.t.interval(0.95, 39, means.mean(), stats.sem(means))
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_copies_of_a_seed_do_not_narrow_the_interval_over_tasks():
    once = {f"t{i}": float(x) for i, x in enumerate(np.random.default_rng([1]).normal(size=30))}
    assert clustered({0: once, 1: once, 2: once}) == pytest.approx(clustered({0: once}))


def test_the_interval_covers_what_it_should():
    """Tasks drawn anew, two agents kept: the true difference lies in 95 of 100 intervals."""
    rng = np.random.default_rng([4])
    hits = 0
    for _ in range(400):
        task = rng.normal(0.1, 0.4, 25)
        seeds = {s: dict(enumerate(task + rng.normal(0, 0.2, 25))) for s in range(3)}
        found = clustered({s: {str(i): float(x) for i, x in one.items()} for s, one in seeds.items()})
        assert found["low"] is not None and found["high"] is not None
        hits += found["low"] <= 0.1 <= found["high"]
    assert 0.92 < hits / 400 < 0.98


def test_a_fault_leaves_its_task_out_of_that_seed():
    runs = [
        run("a", 0, {"x": None, "y": 0.5}),
        run("b", 0, {"x": 1.0, "y": 1.0}),
        run("a", 1, {"x": 0.0, "y": 0.5}),
        run("b", 1, {"x": 1.0, "y": 1.0}),
    ]
    found = pair_with_baseline(runs)
    [row] = found["rows"]
    assert (found["baseline"], row["method"], row["faults"]) == ("a", "b", 1)
    assert row["seeds"]["values"] == {0: 0.5, 1: 0.75}
    assert row["tasks"]["mean"] == pytest.approx(2 / 3) and row["tasks"]["tasks"] == 2


def test_what_cannot_be_paired_is_named_with_its_reason():
    tasks = {"x": 0.1, "y": 0.2}
    runs = [
        run("eto", 0, tasks),
        run("eto", 3, tasks),
        run("rft", 0, {"x": 0.1, "z": 0.2, "y": 0.1}),
        run("rft", 1, tasks),
        run("coevo", 0, tasks, options={"max_turns": 5}),
        run("coevo", 3, {}),
        run("dpo", 0, tasks),
    ]
    found = pair_with_baseline(runs, "eto")
    assert found["unpaired"] == [
        "rft-0 (rft, seed 0): other tasks than eto-0 (eto, seed 0): 1 only here, 0 only there",
        "rft-1 (rft, seed 1): no run of eto has seed 1",
        "coevo-0 (coevo, seed 0): eto-0 (eto, seed 0) was played with other options of the environment",
        "coevo-3 (coevo, seed 3): the folder of coevo-3 holds no trajectories of its last evaluation",
        "eto-3 (eto, seed 3): no run of another method is paired with it",
    ]
    assert [row["method"] for row in found["rows"]] == ["rft", "coevo", "dpo"]
    assert found["rows"][0]["tasks"]["mean"] is None
    assert found["rows"][2]["seeds"]["values"] == {0: 0.0}
    text = paired_table(found)
    assert "| rft − eto | – | 0 | – | 0 | – | 0 |" in text and "- Not paired: rft-1 (rft, seed 1): no" in text


def test_a_method_that_is_not_there_is_no_baseline():
    with pytest.raises(ConfigError, match=r"--baseline: found 'etoo', expected .* \(did you mean 'eto'\?\)"):
        pair_with_baseline([run("eto", 0, {"x": 0.0})], "etoo")


def test_rewards_are_those_of_the_last_evaluation_task_by_task(tmp_path):
    folder = make_run(tmp_path / "run", rounds=2, tasks=5)
    [path] = (folder / "trajectories" / "round-02").glob("eval-target-*")
    played = read_trajectories([path])
    faulty = Trajectory(**{**vars(played[0]), "ending": Ending.FAULT})
    second = Trajectory(**{**vars(played[1]), "sample": 1, "reward": 0.0, "ending": Ending.FAILED})
    write_trajectories(path, [faulty, *played[1:], second])
    found = read_task_rewards(folder, load_results(folder)).rewards
    assert found[faulty.task_id] is None
    assert found[second.task_id] == pytest.approx(played[1].reward / 2)
    assert [found[one.task_id] for one in played[2:]] == [one.reward for one in played[2:]]


def test_the_command_shows_both_intervals_and_who_is_left_out(tmp_path, capsys):
    folders = [
        make_run(tmp_path / f"{method}-{seed}", method=method, seed=seed, rounds=1, tasks=12)
        for method, seed in (("coevo", 0), ("coevo", 1), ("eto", 0), ("eto", 1), ("rft", 2))
    ]
    page = tmp_path / "comparison.html"
    main([*map(str, folders), "--out", str(page), "--baseline", "eto"])
    shown = capsys.readouterr().out
    assert "Differences from eto in mean reward, last round, paired by task" in shown
    assert "95 % over seeds" in shown and "95 % over tasks" in shown
    assert "Not paired: rft-2 (rft, seed 2): no run of eto has seed 2." in shown
    text = page.read_text()
    paired = text.partition('<section id="paired">')[2].partition("</section>")[0]
    assert "95 % interval over seeds (these tasks)" in paired
    assert "95 % interval over tasks (these agents)" in paired
    assert "rft-2 (rft, seed 2): no run of eto has seed 2" in paired
    [row] = re.findall(r"<tr><td class=\"left\">coevo − eto</td>(.*?)</tr>", paired)
    rewards = [read_task_rewards(folder, load_results(folder)) for folder in folders[:4]]
    [expected] = pair_with_baseline(rewards, "eto")["rows"]
    assert expected["tasks"]["mean"] is not None
    assert f"{expected['tasks']['mean']:+.3f}".replace("-", "−") in row
    shutil.rmtree(folders[0] / "trajectories")
    main([*map(str, folders[:4]), "--out", str(page)])
    assert "Not paired: eto-0 (eto, seed 0)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--baseline: found one run"):
        main([str(folders[1]), "--baseline", "eto"])
