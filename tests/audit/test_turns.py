"""Runs that learn from some turns of a trajectory, or from some more than from others."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from coevo_jax.audit import pairs as audit_pairs
from coevo_jax.audit.sides import Imitated, Pair, by_task
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_lines,
    finished_once,
    states,
)
from tests.audit.recipes import FIRST, alone

pytestmark = [pytest.mark.usefixtures("letters"), pytest.mark.slow]

PAIRS = "tests.audit.own_builders:from_the_second_turn"
LAST = "tests.audit.own_builders:last_turns"
SHORT = (
    *("warm_start.epochs=30", "explore.tasks=['40:52']", "explore.samples=4", "model.num_layers=1"),
    *("evaluate.tasks=':9'", "checkpoint.keep=all", "agents.target.ld_alpha=0.5"),
    "agents.target.turn_discount=0.9",
)
SOURCES = alone(
    FIRST,
    {"pairs": PAIRS, "of": ["target"], "kind": "late", "dpo": 0.5, "sft": 0.5},
    {"imitate": LAST, "of": ["target"], "weight": 0.3},
    {"imitate": "experts", "of": ["target"], "weight": 0.2},
)
PHASE, PATH = "round-01/learn_target", "round-01-target"


def paired(source, found):
    """What the builder of the tests makes, derived again."""
    for sides in by_task(found.played(source)[0]).values():
        for couple in combinations([side for side in sides if side.turns > 1], 2):
            worse, better = sorted(couple, key=lambda side: side.episode.reward)
            if worse.episode.reward < better.episode.reward:
                yield Pair(kind="late", chosen=better, rejected=worse, chosen_from=1, rejected_from=1)


def imitated(source, found):
    for side in found.experts:
        yield Imitated(side=side, turns=(*[0.25] * (side.turns - 1), 1.0))
    yield from (Imitated(side=side) for side in found.played(source)[0] if side.episode.sample == 1)


@pytest.fixture(autouse=True)
def derived(monkeypatch):
    monkeypatch.setitem(audit_pairs.PAIRED, PAIRS, lambda source, found: list(paired(source, found)))
    monkeypatch.setitem(audit_pairs.IMITATED, LAST, lambda source, found: list(imitated(source, found)))


@pytest.fixture(scope="module")
def whole(letters, tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT, SOURCES)


def lines(run: Path):
    return [json.loads(line) for line in (run / f"pairs/{PATH}.jsonl").read_text().splitlines()]


def views(run: Path):
    plan = json.loads((run / f"plans/{PATH}.json").read_text())
    return [view for step in plan["steps"] for micro in step for view in micro["views"]]


def test_a_run_that_learns_from_turns_holds(whole):
    found = states(whole)
    assert set(found.values()) == {"held"}, {name: state for name, state in found.items() if state != "held"}
    late = [line for line in lines(whole) if line["kind"] == "late"]
    assert late and all((line["chosen_from"], line["rejected_from"]) == (1, 1) for line in late)
    assert not any("chosen_from" in line for line in lines(whole) if line["kind"] != "late")
    weighed = {tuple(view["turns"]) for view in views(whole) if "turns" in view}
    assert {(0.0, 1.0), (0.25, 1.0)} <= weighed


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


@breaks(f"pairs/{PHASE}")
def a_pair_that_counts_from_its_first_turn(run: Path) -> None:
    def change(text):
        place = next(i for i, line in enumerate(text) if "chosen_from" in line)
        line = json.loads(text[place])
        del line["chosen_from"]
        text[place] = json.dumps(line)

    edit_lines(run, f"pairs/{PATH}.jsonl", change)


def _first_view(plan, turns):
    return next(
        view
        for step in plan["steps"]
        for micro in step
        for view in micro["views"]
        if view.get("turns") == turns
    )


@breaks(f"plan/{PHASE}")
def a_view_of_another_turn(run: Path) -> None:
    edit_json(run, f"plans/{PATH}.json", lambda plan: _first_view(plan, [0.0, 1.0]).update(turns=[1.0, 0.0]))


@breaks(f"plan/{PHASE}")
def a_view_that_counts_more_tokens(run: Path) -> None:
    def more(plan):
        _first_view(plan, [0.0, 1.0])["tokens"] += 1

    edit_json(run, f"plans/{PATH}.json", more)


@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)
