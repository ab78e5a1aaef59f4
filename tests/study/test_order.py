"""Which run a free worker takes next, played with runs that take no time."""

from dataclasses import replace

import pytest

from coevo_jax.study.order import next_cell
from coevo_jax.study.plan import Cell, plan_study
from coevo_jax.study.pool import alike, first_states
from tests.study.small import configs, made_row


@pytest.fixture
def cells(tmp_path):
    read = configs(tmp_path, "sft-more", "eto", "coevo", "eto-compute")
    return plan_study(read, (0, 1), tmp_path / "runs")


def play(cells, workers, minutes, outcome=lambda cell: "done"):
    """Let workers take cells until none is left: (begin, end, name) of each, by a clock of its own."""
    states = {cell.key: "waiting" for cell in cells}
    running: list[tuple[float, Cell]] = []
    now, log = 0.0, []
    while True:
        while len(running) < workers:
            cell = next_cell(cells, states, alike)
            if cell is None:
                break
            states[cell.key] = "running"
            end = now + minutes(cell)
            running.append((end, cell))
            log.append((now, end, cell.folder.name))
        if not running:
            return log, states
        running.sort(key=lambda one: one[0])
        now, cell = running.pop(0)
        states[cell.key] = outcome(cell)


def spans(log):
    return {name: (begin, end) for begin, end, name in log}


def test_a_seeds_first_run_makes_the_warm_start_and_the_others_wait_for_it(cells):
    log, states = play(cells, 2, lambda cell: 4.0 if cell.method == "coevo" else 1.0)
    found = spans(log)
    assert set(states.values()) == {"done"} and len(log) == len(cells)
    assert [name for begin, _, name in log if begin == 0] == ["small-coevo-0", "small-coevo-1"]
    for seed in (0, 1):
        made = found[f"small-coevo-{seed}"][1]
        for method in ("sft-more", "eto", "eto-compute"):
            assert found[f"small-{method}-{seed}"][0] >= made


def test_no_worker_idles_while_a_run_can_begin(cells):
    log, _ = play(cells, 2, lambda cell: 1.0)
    assert max(end for _, end, _ in log) == len(cells) / 2


def test_a_budget_waits_for_its_run_also_where_another_has_made_the_warm_start(cells):
    ordered = sorted(cells, key=lambda cell: cell.method == "coevo")  # as if coevo came last
    log, _ = play(ordered, 2, lambda cell: 1.0)
    found = spans(log)
    for seed in (0, 1):
        assert found[f"small-eto-compute-{seed}"][0] >= found[f"small-coevo-{seed}"][1]


def test_a_lost_run_lets_another_make_the_warm_start_and_its_budget_fail_at_once(cells):
    log, states = play(
        cells, 2, lambda cell: 1.0, lambda cell: "lost" if cell.key == ("coevo", 0) else "done"
    )
    assert len(log) == len(cells) and states["coevo", 0] == "lost"
    own = [(begin, name) for begin, _, name in log if name.endswith("-0")]
    assert (
        own[0][1] == "small-coevo-0" and len({begin for begin, _ in own[1:]}) > 1
    )  # one first, then the others


def test_what_has_a_row_is_not_run_again(cells):
    rows = [made_row(cell.method, cell.seed, [1.0, 0.0], config=cell.digest) for cell in cells]
    assert set(first_states(cells[:1], rows).values()) == {"done"}
    eto = next(cell for cell in cells if cell.key == ("eto", 0))
    for changed, state in [
        ({"status": "diverged", "why": "at step 3"}, "lost"),
        ({"status": "failed", "why": "OSError"}, "waiting"),
        ({"status": "broken"}, "waiting"),
        ({"config": "another"}, "waiting"),
    ]:
        row = made_row("eto", 0, [1.0], **({"config": eto.digest} | changed))
        assert first_states([eto], [row]) == {("eto", 0): state}
    assert first_states([eto], []) == {("eto", 0): "waiting"}


def test_a_run_that_another_needs_is_made_where_only_its_row_is_here(cells):
    rows = [made_row("coevo", 0, [1.0], config=cells[0].digest)]
    own = [cell for cell in cells if cell.seed == 0]
    states = first_states(own, rows)
    assert states["coevo", 0] == "waiting" == states["eto-compute", 0]
    everything = [made_row(cell.method, 0, [1.0], config=cell.digest) for cell in own]
    assert set(first_states(own, everything).values()) == {"done"}


def test_bases_are_not_shared(cells):
    other = replace(cells[1], base="another")
    assert alike(cells[0], cells[1]) and not alike(cells[0], other)
