"""What a study's tables say of rows, the missing ones too; and the statistics behind them."""

import math

import pytest
from scipy import stats

from coevo_jax.config.strict import ConfigError
from coevo_jax.study.page import PARTS, configured, write_tables
from coevo_jax.study.sample import sample
from coevo_jax.study.statistics import difference, holm, paired_test
from coevo_jax.study.tables import differences_table, held_out_table, rewards_table, sampled_table
from coevo_jax.study.why_tables import (
    costs_table,
    errors_table,
    negatives_table,
    provenance,
    second_agent_table,
)
from tests.study.small import made_row

SEEDS = (0, 1, 2)


def rewards(shift: float, seed: int) -> list[float | None]:
    return [0.0, 1.0, round(0.25 + shift, 3), round(0.5 + shift * (1 + seed), 3)]


def rows():
    """Three methods with three seeds, of which one diverged, one's audit is broken, and one has no row."""
    made = [made_row("eto-compute", seed, rewards(0.0, seed)) for seed in SEEDS]
    made += [made_row("sft-more", seed, rewards(0.1, seed)) for seed in SEEDS]
    made += [made_row("coevo", seed, rewards(-0.05, seed)) for seed in SEEDS]
    made[1] = {
        key: made[1][key] for key in ("study", "method", "seed", "config", "base", "commit", "dirty")
    } | {
        **{"status": "failed", "why": "OSError: no space\nleft", "date": "2026-01-09T00:00:00Z"},
        "machine": made[0]["machine"],
    }
    made[3] |= {"status": "diverged", "why": "round-01/learn_target: the loss is not finite", "audit": None}
    made[8] |= {
        "status": "broken",
        "audit": made[8]["audit"] | {"broken": 1, "broken_checks": ["pairs/round-01"]},
    }
    return made


def cells(text: str, part: int = 0) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first."""
    tables = [one for one in text.split("\n\n") if one.startswith("|")]
    lines = [line for line in tables[part].splitlines() if line.startswith("|")][2:]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {line[0]: line[1:] for line in split}


def test_a_run_that_did_not_finish_is_in_no_mean_and_is_said():
    text = rewards_table(sample("small", rows(), ["rft"]))
    found = cells(text)
    assert list(found) == ["sft-more", "eto-compute", "coevo", "rft"]
    means = [sum(rewards(0.1, seed)) / 4 for seed in (1, 2)]
    half = 12.706204736 * abs(means[0] - means[1]) / 2
    assert found["sft-more"][2] == f"{sum(means) / 2:.3f} ± {half:.3f} (2 of 3 seeds)"
    assert found["coevo"][2].endswith("(2 of 3 seeds)") and found["coevo"][4].startswith("0.4")
    assert set(found["rft"]) == {"not run"}
    assert found["sft-more"][4] == "–"  # has no second agent
    assert "- In no mean: sft-more, seed 0: diverged: round-01/learn_target: the loss is not finite." in text
    assert "- In no mean: eto-compute, seed 1: failed: OSError: no space left." in text
    assert "- In no mean: coevo, seed 2: its audit is broken (pairs/round-01)." in text


def test_a_seed_without_a_row_is_said():
    some = [row for row in rows() if (row["method"], row["seed"]) != ("coevo", 0)]
    assert "- In no mean: coevo, seed 0: not run." in rewards_table(sample("small", some))


def test_differences_are_paired_by_seed_and_by_task():
    made = [made_row("eto-compute", s, rewards(0.0, s)) for s in SEEDS]
    made += [made_row("coevo", s, rewards(-0.06, s)) for s in SEEDS]  # no mean ends in half a thousandth
    made += [made_row("rft", s, rewards(0.02, s)) for s in SEEDS]
    text = differences_table(sample("small", made))
    assert text.startswith("No finished run of sft-more yet")
    found = cells(text)
    by_seed = [-0.06 * (2 + seed) / 4 for seed in SEEDS]
    mean = sum(by_seed) / 3
    deviation = math.sqrt(sum((one - mean) ** 2 for one in by_seed) / 2)
    error = deviation / math.sqrt(3)
    half = 4.302652730 * error
    assert (
        found["coevo"][0] == f"{mean:+.3f} ± {half:.3f}".replace("-", "−") and found["coevo"][1] == "3 of 3"
    )
    assert found["coevo"][3] == "4"
    # Over tasks: the cluster sums of the differences less their mean are, in units of 0.06, known by hand.
    sums = [3 * (0 - mean), 3 * (0 - mean), 3 * (-0.06 - mean), -0.06 * 6 - 3 * mean]
    tasks = math.sqrt(4 / 3 * sum(one**2 for one in sums)) / 12
    low, high = mean - 3.182446305 * tasks, mean + 3.182446305 * tasks
    assert found["coevo"][2] == f"{mean:+.3f} [{low:.3f}, {high:.3f}]".replace("-", "−")
    p_seeds = float(2 * stats.t.sf(abs(mean) / error, 2))
    assert found["coevo"][4] == f"{p_seeds:.3g} ({2 * p_seeds:.3g})"  # both have the same t: twice by Holm
    assert "for 2 rivals of eto-compute" in text


def test_runs_that_played_other_tasks_are_not_paired():
    made = [made_row("eto-compute", s, rewards(0.0, s)) for s in SEEDS]
    made += [made_row("coevo", s, rewards(0.1, s)) for s in SEEDS]
    made[4]["evaluations"][-2]["tasks"] = "others"  # the target's last
    text = differences_table(sample("small", made))
    assert cells(text)["coevo"][1] == "2 of 3" and "- Not paired: coevo, seed 1: played other tasks." in text


def test_a_method_without_a_partner_says_so():
    made = [made_row("eto-compute", 0, [1.0, 0.0]), made_row("coevo", 1, [1.0, 0.0])]
    text = differences_table(sample("small", made, ["rft"]))
    assert set(cells(text)["coevo"]) == {"–"} and "rft" not in cells(text)
    assert "- Not run yet: rft." in text
    assert "- Not paired: coevo, seed 1: no finished run of eto-compute has this seed." in text


def test_the_test_tasks_have_a_table_of_their_own():
    made = [made_row("eto-compute", 0, [1.0, 0.0]), made_row("coevo", 0, [1.0, 0.0])]
    assert held_out_table(sample("small", made)) == "The test tasks have not been played yet."
    for row, last in zip(made, (0.25, 0.75), strict=True):
        found = {"tasks": "u", "rewards": [1.0, last], "mean_reward": 0.5 + last / 2, "success_rate": 0.5}
        row["test"] = {"agents": {"target": found}}
    found = cells(held_out_table(sample("small", made)))
    assert found["coevo"][0] == "+0.250"
    assert cells(rewards_table(sample("small", made)))["coevo"][5:] == ["–", "0.875", "0.500"]


def test_the_dev_tasks_at_temperature_1_have_a_table_of_their_own():
    made = [made_row("eto-compute", 0, [1.0, 0.0]), made_row("coevo", 0, [1.0, 0.0])]
    assert sampled_table(sample("small", made)) == "The dev tasks have not been played at temperature 1 yet."
    for row, last in zip(made, (0.25, 0.75), strict=True):
        found = {"tasks": "u", "rewards": [1.0, last], "mean_reward": 0.5 + last / 2, "success_rate": 0.5}
        row["sampled"] = {"agents": {"target": found}}
    text = sampled_table(sample("small", made))
    assert "| sampled reward, minus eto-compute |" in text and cells(text)["coevo"][0] == "+0.250"
    assert cells(rewards_table(sample("small", made)))["coevo"][5:] == ["0.875", "–", "–"]


def test_tables_that_say_why():
    made = sample("small", [made_row("coevo", s, rewards(0.0, s)) for s in SEEDS], ["rft"])
    negatives = negatives_table(made)
    lines = [line for line in negatives.splitlines() if line.startswith("| coevo")]
    assert [line.split("|")[2].strip() for line in lines] == ["target", "failure", "hard negatives (failure)"]
    # A seed's four episodes: one solved, one failure in 0-0.1 and two in 0.6-0.7.
    own = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert (
        own[2:5] == ["9", "0.500", "33.3 %"]
        and own[10] == "66.7 %"
        and own[14:] == ["50.0 %", "75.0 %", "12.5 %"]
    )
    assert "rft" not in cells(negatives)
    for text in (negatives, errors_table(made), costs_table(made)):
        assert text.endswith("\n- Not run yet: rft.")
    second = cells(second_agent_table(made))
    assert [cell.split()[0] for cell in second["coevo"]] == [
        "0.125",
        "0.250",
        "0.438",
        "0.250",
        "0.375",
        "0.438",
    ]
    assert "rft" not in second
    errors = cells(errors_table(made))
    assert errors["coevo"] == errors["*warm start*"]
    assert errors["coevo"][:6] == ["6 of 12", "50.0 %", "0.0 %", "50.0 %", "0.0 %", "0.0 %"]
    assert errors["coevo"][6:] == ["3 of 3", "25.0 %", "0.0 %"]
    costs = cells(costs_table(made))
    assert (
        costs["coevo"][0] == "1\u202f000"
        and costs["coevo"][4].startswith("1.5 ± ")
        and costs["coevo"][5] == "2 : 1"
    )
    text = provenance(made)
    assert "3 runs have a row, 3 of them are finished; written 2026-01-01 to 2026-01-03" in text
    assert "checks 150 held, 0 broken, 3 not checkable" in text and "b" * 64 in text


def test_a_table_never_mixes_bases_or_a_methods_configs():
    for key, words in (
        ("base", "base: found other for eto, seed 1"),
        ("config", "config: found other for eto"),
    ):
        made = [made_row("eto", 0, [1.0]), made_row("eto", 1, [1.0], **{key: "other"})]
        with pytest.raises(ConfigError, match=words):
            sample("small", made)


def test_a_page_is_filled_where_it_has_places(tmp_path):
    page = tmp_path / "page.md"
    places = "".join(f"\n<!-- table:small-{part} -->\n<!-- /table -->\n" for part in PARTS)
    page.write_text(f"# A page\n{places}\n<!-- table:none-yet-rewards -->\nold\n<!-- /table -->\nThe end.\n")
    written = write_tables(page, {tmp_path / "rows": rows()})
    assert written == [*(f"small-{part}" for part in PARTS), "none-yet-rewards"]
    text = page.read_text()
    assert text.startswith("# A page\n") and text.endswith("The end.\n") and "old" not in text
    assert "| sft-more |" in text
    write_tables(page, {tmp_path / "rows": rows()})
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "has no place for a table"),
        ("<!-- table:small-rewords -->\n<!-- /table -->\n", "table small-rewords: expected STUDY-PART"),
    ],
)
def test_a_page_without_places_is_refused_and_not_touched(text, words, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match=words):
        write_tables(page, {tmp_path / "rows": rows()})
    assert page.read_text() == text


def test_two_files_with_a_run_each_are_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table:small-rewards -->\n<!-- /table -->\n")
    with pytest.raises(ConfigError, match="small-eto-compute, seed 0 has a row in another file, too"):
        write_tables(page, {tmp_path / "a": rows(), tmp_path / "b": rows()})


def test_the_methods_of_a_study_are_those_with_a_config():
    found = configured("sql")
    assert {"sft", "eto-compute", "coevo-failures"} <= set(found) and "sql" not in found


def test_holms_correction_by_hand():
    # Holm (1979): of 4, the smallest times 4, then times 3, 2, 1, never falling, at most 1.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.5, "b": 0.6}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert holm({"a": 0.2}) == {"a": 0.2} and holm({}) == {}


def test_a_paired_test_by_hand():
    # Differences 1, 2, 3: mean 2, error 1 / sqrt(3), t 3.4641 with 2 degrees; 1 - F by the closed form.
    t = 2 * math.sqrt(3)
    assert paired_test([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(t**2 + 2), rel=1e-12)
    assert paired_test([0.5]) is None and paired_test([0.0, 0.0]) == 1.0 and paired_test([0.5, 0.5]) == 0.0


def test_tasks_that_ended_in_a_fault_are_in_no_difference():
    found = difference({0: [1.0, None, 0.5], 1: [1.0, 1.0, None]}, {0: [0.5, 1.0, None], 1: [0.0, 1.0, 1.0]})
    assert found["seeds"]["values"] == {0: 0.5, 1: 0.5} and found["tasks"]["tasks"] == 2
    assert found["tasks"]["mean"] == pytest.approx(0.5)
