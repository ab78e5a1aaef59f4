"""The table of a study's room: base, floor, ceiling and first roll-outs, and what is no room of one study."""

import json

import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.study.page import write_tables
from coevo_jax.study.plan import weights_digest
from coevo_jax.study.room import base_records, ceiling_of, room_table
from coevo_jax.study.sample import sample
from tests.study.small import made_row
from tests.study.test_tables import cells

ROWS = {
    "base": "the base",
    "floor": "floor: the warm start",
    "ceiling": "ceiling: many experts imitated",
    "explored": "the warm start's roll-outs on the training tasks, at temperature 1",
}


def studied():
    """Rows of two methods with two seeds, which begin with the same warm start."""
    made = [made_row(method, seed, [0.0, 1.0, 0.25, 0.5]) for method in ("eto", "coevo") for seed in (0, 1)]
    for row in made:
        row["evaluations"][0]["mean_reward"] = 0.25 + 0.1 * row["seed"]
    return made


def above(**changed):
    """Rows of the ceiling: after round 0 it has no other."""
    made = [made_row("sft", seed, [0.0, 1.0, 1.0, 0.75], study=ceiling_of("small")) for seed in (0, 1)]
    for row in made:
        row["evaluations"] = [{**row["evaluations"][0], "mean_reward": 0.75}]
        row["explorations"] = []
        row |= changed
    return made


def base_folder(folder):
    """A base with its record, as far as the table goes; returns its digest."""
    one = folder / "one"
    one.mkdir(parents=True)
    (one / "model.safetensors").write_bytes(b"weights")
    summary = made_row("sft", 0, [0.0, 0.5, 0.625, 1.0])["evaluations"][0] | {"mean_reward": 0.53125}
    record = {"config": {"name": "base-small"}, "skills": {"base": {"summary": summary}}}
    (one / "base.json").write_text(json.dumps(record))
    (folder / "none").mkdir()
    digest = weights_digest(one)
    assert digest is not None and weights_digest(folder / "none") is None
    return digest


def table_of(rows, ceiling=(), bases=None):
    found = room_table(sample("small", rows), sample(ceiling_of("small"), ceiling), bases or {})
    return {name: cells(found)[words] for name, words in ROWS.items()}


def test_floor_and_ceiling_are_means_over_seeds_and_failures_of_all_of_them():
    found = table_of(studied(), above())
    assert found["floor"][0].startswith("0.300 ± ") and found["ceiling"][0] == "0.750 ± 0.000"
    # A seed's four episodes: one solved, one failure in 0-0.1 and two in 0.6-0.7; each seed counts once.
    assert found["floor"][2:5] == ["6", "0.500", "33.3 %"] and found["floor"][10] == "66.7 %"
    assert found["explored"][0] == "0.500 ± 0.000" and found["explored"][2] == "6"
    assert set(found["base"]) == {"not run"}


def test_what_was_not_run_says_so():
    found = table_of([])
    assert all(set(one) == {"not run"} for one in found.values())
    failed = made_row("eto", 0, [1.0, 0.0], status="failed")
    assert set(table_of([failed])["floor"]) == {"not run"}
    assert "±" not in table_of(studied()[:1])["floor"][0]  # one seed has no interval


def test_the_base_is_found_by_its_weights(tmp_path):
    digest = base_folder(tmp_path / "bases")
    records = base_records(tmp_path / "bases")
    assert list(records) == [digest]
    assert set(table_of(studied(), bases=records)["base"]) == {"not run"}
    own = [row | {"base": digest} for row in studied()]
    for rows in (own, []):  # before any run, by the name of its config
        assert table_of(rows, bases=records)["base"][:3] == ["0.531", "0.250", "3"]


def test_a_page_gets_it_with_the_bases_of_a_folder(tmp_path):
    digest = base_folder(tmp_path / "bases")
    own = [row | {"base": digest} for row in studied()]
    page = tmp_path / "page.md"
    page.write_text("<!-- table:small-room -->\n<!-- /table -->\n")
    files = {tmp_path / "a": own, tmp_path / "b": above(base=digest)}
    assert write_tables(page, files, tmp_path / "bases") == ["small-room"]
    text = page.read_text()
    assert "| the base | 0.531 |" in text and f"| {ROWS['ceiling']} | 0.750" in text
    write_tables(page, files)
    assert "| the base | not run |" in page.read_text()


def test_a_ceiling_of_another_base_or_of_other_tasks_is_refused():
    with pytest.raises(ConfigError, match="rows of ceiling-small: base: found x, expected bbb"):
        table_of(studied(), above(base="x"))
    others = above()
    others[0]["evaluations"][0]["tasks"] = "others"
    with pytest.raises(ConfigError, match="tasks: found others, expected t as in those of small"):
        table_of(studied(), others)
