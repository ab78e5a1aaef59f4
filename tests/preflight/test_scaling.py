"""How cost grows: the grid's settings, the tables' arithmetic, and that the page is what its figures say."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from coevo_jax.commands.actions.scaling import MODELS, cells, config_of, fsdp_cells
from coevo_jax.config.reading import load_config
from coevo_jax.machine.chips import BY_NAME
from coevo_jax.machine.costs import whole_weights
from coevo_jax.preflight.scaling import ROW_LENGTHS, SLICES, GridCell, cell_config, roll_out_size, slice_of
from coevo_jax.preflight.scaling_tables import tables
from tests.peers import libtpu_folder

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "scaling.md"


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def figures():
    return json.loads(PAGE.with_suffix(".json").read_text())


def machine_of(chip: str, chips: int):
    """What the grid's settings read of a machine."""
    return SimpleNamespace(devices=range(chips), memory=BY_NAME[chip].memory)


@pytest.mark.parametrize("chips", [4, 16, 64, 256])
@pytest.mark.parametrize("trained", SLICES)
def test_a_cell_is_the_papers_step_over_all_chips(trained, chips):
    cell = GridCell(config=config_of("llama31-8b"), trained=trained, chips=chips)
    config = cell_config(cell, machine_of(SLICES[trained], chips))
    mesh = config.mesh
    assert mesh.data * mesh.fsdp * mesh.tensor == chips and config.batch.rows % mesh.fsdp == 0
    assert config.batch.rows * config.batch.row_length == 16 * 4096
    assert (config.model.lora is not None) == (trained == "adapters")
    assert cell.topology == slice_of(SLICES[trained], chips)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chip", ["v5e", "v5p"])
def test_copies_for_roll_outs_take_at_most_half_of_a_chip_and_no_more_chips_than_that(model, chip):
    config, memory = load_config(config_of(model)), BY_NAME[chip].memory
    tensor, slots = roll_out_size(config, machine_of(chip, 256))
    assert config.model.vocab_size is not None
    lanes = 1 if config.model.lora is not None else 2
    copies = lanes * 2 * whole_weights(config.model, config.model.vocab_size)
    assert copies / tensor <= memory / 2
    assert tensor == 4 or copies / (tensor // 2) > memory / 2
    assert 1 <= slots <= 16


def test_links_cross_where_they_take_as_long_as_the_rest(figures):
    """Of work that goes with tokens beside links that do not, the crossing is known."""
    grid = {key: one for key, one in figures.items() if "tokens" not in one}
    rows = {
        str(tokens): {
            "model": "m",
            "chip": "v5p",
            "tokens": tokens,
            "refused": False,
            "compute": tokens / 700,
            "memory": tokens / 1400,
            "links": 1.0,
            "sent_gib": 100.0,
        }
        for tokens in ROW_LENGTHS
    }
    found = dict(tables(grid | rows))["fsdp"]
    assert found.splitlines()[-1] == "| m, v5p | 17% | 68% | 137% | 273% | about 700 | 100 |"


def test_what_is_too_large_is_bold_and_has_no_time(figures):
    found = dict(tables(figures))
    row = next(x for x in found["memory-all"].splitlines() if x.startswith("| llama31-70b"))
    assert row.split("|")[2].count("**") == 4  # learning and roll-outs, on 4 chips
    step = next(x for x in found["step-all"].splitlines() if x.startswith("| llama31-70b"))
    assert step.split("|")[2].strip() == "–"


def test_the_page_is_what_its_figures_say(figures):
    page = PAGE.read_text()
    wanted = [one.key for one in cells()] + [one.key for one in fsdp_cells()]
    assert list(figures) == ["versions", *wanted]
    for name, text in tables(figures):
        assert f"<!-- table:{name} -->\n{text}\n<!-- /table -->" in page, (
            f"run python -m launch.scaling {PAGE}"
        )


def test_figures_grow_and_shrink_as_they_must(figures):
    grid = [one for one in figures.values() if "topology" in one]
    for model, trained in {(one["model"], one["trained"]) for one in grid}:
        own = [one for one in grid if (one["model"], one["trained"]) == (model, trained)]
        resident = [one["resident_gib"]["learning"] for one in own]
        assert resident == sorted(resident, reverse=True) and len(set(resident)) == len(resident)
        fits = [one["fits"] for one in own]
        assert fits == sorted(fits) and fits[-1], f"{model} {trained}: fits {fits}"
        computed = [one["chips"] * one["step"]["compute"] for one in own if one["step"]]
        assert max(computed) == pytest.approx(min(computed))
    for cell in grid:
        for runs in (cell["runs"] or {}).values():
            for run in runs.values():
                hours = sum(value for part, value in run.items() if part != "hours")
                assert hours == pytest.approx(run["hours"] * cell["chips"])
            own, eto = runs["coevo"], runs["eto"]
            assert own["target_roll_outs"] == eto["target_roll_outs"]
            assert own["warm_start"] == eto["warm_start"] and own["target_learning"] > eto["target_learning"]


@pytest.mark.slow
def test_a_cell_measured_anew_gives_the_kept_figures(figures, tmp_path):
    """Of the smallest model, with the compiler that made the page."""
    libtpu = libtpu_folder()
    code = (
        "import json\nfrom coevo_jax.commands.actions.scaling import cells\n"
        "from coevo_jax.preflight.scaling import measure\n"
        "cell = next(one for one in cells() if one.trained == 'adapters' and one.chips == 16)\n"
        "print('\\n' + json.dumps([cell.key, measure(cell, {}, lambda words: None)]))"
    )
    environment = {"PYTHONPATH": f"{libtpu}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    key, found = json.loads(done.stdout.splitlines()[-1])
    kept = figures[key]
    assert found["fits"] == kept["fits"] and found["mesh"] == kept["mesh"]
    assert found["resident_gib"] == pytest.approx(kept["resident_gib"])
    assert found["peak_gib"] == pytest.approx(kept["peak_gib"], rel=0.01)
    assert found["step"] == pytest.approx(kept["step"], rel=0.01)
    assert found["runs"]["WebShop"]["coevo"] == pytest.approx(kept["runs"]["WebShop"]["coevo"], rel=0.01)
