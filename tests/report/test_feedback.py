"""Numbers that use test feedback say so wherever they stand, and no run is compared by them."""

import re
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.methods import markdown
from coevo_jax.report.cast import cast_of, feedback_lines
from coevo_jax.report.comparison import best_evaluation, compare, fed_reward_of, final_evaluation
from coevo_jax.report.comparison_page import comparison_page
from coevo_jax.report.errors import errors_section
from coevo_jax.report.paired import pair_with_baseline, read_task_rewards
from coevo_jax.report.run_page import header, histograms_section, rounds_section
from coevo_jax.report.terminal import print_comparison, print_run
from coevo_jax.run_folder.results import ResultsFile, load_results, main_evaluations
from coevo_jax.run_folder.tensorboard import round_scalars
from tests.report.made_run import make_run

COUNTS = {"episodes": 9, "steps": 8, "queries": 5, "predicted": 3, "predicted_right": 2, "learned_tokens": 70}
SAID = "adapted (uses test feedback)"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of ATENA, whose adapted agent would be the best of all, and a plain one."""
    folder = tmp_path_factory.mktemp("runs")
    adapted, plain = (make_run(folder / name, method=name, rounds=2, tasks=9) for name in ("atena", "eto"))
    results: Any = load_results(adapted)
    last = next(e for e in results["evaluations"] if (e["round"], e["agent"]) == (2, "target"))
    results["evaluations"].append(
        {**deepcopy(last), "name": "adapted", "mean_reward": 0.9625, "test_feedback": COUNTS}
    )
    results["config"]["recipe"].append({"evaluate": {"agent": "target", "name": "adapted", "adapt": {}}})
    ResultsFile(adapted).save(results)
    return [adapted, plain]


def printed(show: Any, *arguments: Any) -> str:
    console = Console(width=300, record=True, file=StringIO())
    show(*arguments, console)
    return console.export_text()


def test_every_row_and_series_of_a_run_says_it_once_for_each(folders):
    results = load_results(folders[0])
    shown = printed(print_run, results)
    assert re.search(rf"target, {re.escape(SAID)} +0\.96", shown)
    rounds = rounds_section(results)
    assert rounds.count(f">Target, {SAID}</td>") == 1
    assert f"Target, {SAID}" in histograms_section(results)
    assert f"Target, {SAID}, test" in errors_section(results)
    for text in (shown, rounds):
        without = text.replace(SAID, "")
        assert "adapted" not in without, "a number without its words"
        assert "5 of which were asked for their true success; 2 of the other 3 predicted right" in text
    cast = cast_of(results)
    assert cast.phase_name("round-01/evaluate_adapted") == f"Round 1 · Evaluation: target, {SAID}"
    assert cast.source_name("eval-adapted", "target") == f"Evaluation: target, {SAID}"
    assert cast.evaluation_name("target") == "Target"


def test_a_run_under_way_says_it_before_the_first_number(folders):
    results = load_results(folders[0])
    results["evaluations"] = [e for e in results["evaluations"] if "test_feedback" not in e]
    assert cast_of(results).evaluation_name("adapted") == f"Target, {SAID}"
    assert feedback_lines(cast_of(results), results["evaluations"]) == []


def test_no_headline_is_made_of_it(folders):
    results = load_results(folders[0])
    assert not [e for e in main_evaluations(results, "target") if "test_feedback" in e]
    for found in (final_evaluation(results), best_evaluation(results)):
        assert found is not None and "test_feedback" not in found
    assert "0.963" not in header(results) and "0.962" not in header(results)


def test_tags_of_curves_say_it(folders):
    tags = {tag: value for tag, _, value in round_scalars(load_results(folders[0]))}
    assert tags["eval/adapted_uses_test_feedback/mean_reward"] == 0.9625
    assert not [tag for tag in tags if tag.startswith("eval/adapted/")]


def test_comparisons_show_it_in_a_column_of_its_own(folders):
    runs = [load_results(folder) for folder in folders]
    for run in runs:
        run["environment"] |= {"packages": {"jax": "0.10.2"}, "python": "3.11"}
    found = compare(runs)
    assert found["fed"] == {f"Target, {SAID}": "adapted"}
    rows = {row["method"]: row["measures"] for row in found["methods"]}
    assert rows["atena"][fed_reward_of("adapted")]["mean"] == 0.9625
    assert rows["eto"][fed_reward_of("adapted")]["mean"] is None
    assert rows["atena"]["best_reward"]["mean"] < 0.9625
    paired = pair_with_baseline(
        [read_task_rewards(folder, run) for folder, run in zip(folders, runs, strict=True)]
    )
    texts = [
        printed(print_comparison, found, paired),
        comparison_page(found, paired),
        markdown(found, runs, paired),
    ]
    for text in texts:
        flat = re.sub(r"\s+", " ", text)
        assert "uses test feedback" in flat
        assert "adapted" not in flat.replace(SAID, "")
