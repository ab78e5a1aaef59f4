"""Broken runs beside a weak model: the audit names the draws, the entropies or the model alone."""

import json
from pathlib import Path

import pytest

from coevo_jax.audit.draws import drawn_extras, lots, probabilities
from coevo_jax.config.beside import DrawOptions
from tests.audit.breaking import (
    Edit,
    assert_named_alone,
    collected,
    copy,
    edit_json,
    edit_metrics,
    edit_record,
    finished,
    finished_once,
    manifest,
    states,
)

SHORT = ("warm_start.epochs=8", "explore.tasks=['40:52']", "model.num_layers=1", "evaluate.tasks=':6'")
# By how much both models differ must be seen, and which of them is which.
TWO = (
    *("recipe=wmss", "rounds=2", "agents={target: {epochs: 2, learning_rate: [1e-2]}}"),
    "recipe.learn_target.beside.mix=0.3",
)
PHASE = "round-02/learn_target"
DRAWS = "draws/round-02-target.json"


def test_probabilities_and_lots_by_hand():
    """Changes -1, +1 and -3, as the run's own test has them; the places end at a quarter, a half and 1."""
    found = probabilities([(2.0, 1.0), (2.0, 3.0), (4.0, 1.0)], DrawOptions())
    assert found == pytest.approx([0.025 + 0.2, 0.025 + 0.1, 0.05 + 0.6])
    assert probabilities([(1.0, 1.0), (3.0, 3.0)], DrawOptions()) == pytest.approx([0.25, 0.75])
    assert probabilities([(0.0, 0.0)] * 4, DrawOptions()) == [0.25] * 4
    assert lots([0.25, 0.25, 0.5], [0.0, 0.24, 0.25, 0.99]) == [2, 1, 1]
    keys = [(("a", b""), None), (("a", b""), (1.0, 0.0)), (("b", b""), None), (("c", b""), None)]
    found = drawn_extras(dict.fromkeys(keys, 1.0), [3, 0, 1])  # two ways of imitating the first one
    assert found == {keys[0]: 1.5, keys[1]: 1.5, keys[3]: 0.5}


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    request.getfixturevalue("letters")
    return finished_once(tmp_path_factory, *SHORT, *TWO)


EDITS: dict[str, tuple[Edit, set[str]]] = {}
breaks = collected(EDITS)


def change(run: Path, **values: object) -> None:
    """Change a trajectory that was drawn."""

    def edit(made):
        row = next(one for one in made["trajectories"] if one["drawn"])
        row.update({key: value(row[key]) if callable(value) else value for key, value in values.items()})

    edit_json(run, DRAWS, edit)


@breaks(f"draws/{PHASE}", f"plan/{PHASE}")
def drawn_once_more(run: Path) -> None:
    change(run, drawn=lambda count: count + 1)


@breaks(f"draws/{PHASE}", f"entropies/{PHASE}")
def another_entropy(run: Path) -> None:
    """Neither the probabilities nor the means of the record follow from it."""
    change(run, weak=lambda entropy: entropy + 0.5)


@breaks(f"draws/{PHASE}")
def another_probability(run: Path) -> None:
    change(run, probability=lambda share: share + 1e-6)


@breaks(f"draws/{PHASE}")
def another_trajectory(run: Path) -> None:
    change(run, sample=17)


@breaks(f"draws/{PHASE}")
def another_weak_model_in_the_record(run: Path) -> None:
    edit_record(run, PHASE, lambda one: one["records"]["beside"].update(weak=None))


@breaks(f"draws/{PHASE}")
def another_mean_in_the_log(run: Path) -> None:
    edit_metrics(run, PHASE, "target/beside/entropy_weak", lambda mean: mean + 0.1)


@breaks(f"loss/{PHASE}")
def another_loss_of_the_mixture(run: Path) -> None:
    edit_metrics(run, PHASE, "target/loss/sft", lambda loss: loss + 0.05)


@breaks(f"loss/{PHASE}")
def another_weak_logp(run: Path) -> None:
    edit_metrics(run, PHASE, "target/beside/weak_token_logp", lambda logp: logp - 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named_alone(name, whole, tmp_path):
    run = copy(whole, tmp_path)
    edit, names = EDITS[name]
    edit(run)
    assert_named_alone(run, names)


@pytest.mark.slow
def test_a_run_that_mixed_in_another_model_is_named(whole, tmp_path):
    """The agent as the round began stands in the place of the one before: both checks see it."""
    run = copy(whole, tmp_path)
    records = {one["name"]: one["records"] for one in manifest(run)["done"]}
    place = run / "checkpoints"
    before, now = (str(records[f"round-0{n}/learn_target"]["began_with"]) for n in (1, 2))
    config = json.loads((run / "manifest.json").read_text())
    assert before != now and config["checkpoint"] not in (before, now)
    (place / before).rename(place / "away")
    (place / now).rename(place / before)
    (place / "away").rename(place / now)
    found = {name for name, state in states(run).items() if state == "BROKEN"}
    assert {f"entropies/{PHASE}", f"loss/{PHASE}"} <= found


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_where_checkpoints_are_pruned_the_draws_are_checked_and_early_entropies_are_not(tmp_path):
    run = finished(tmp_path, *SHORT, *TWO, "rounds=4", "checkpoint.keep=1", "checkpoint.every_steps=1")
    found = states(run)
    assert set(found.values()) == {"held", "not checkable"}
    assert all(found[f"draws/round-0{n}/learn_target"] == "held" for n in (1, 2, 3, 4))
    kept = {n: found[f"entropies/round-0{n}/learn_target"] for n in (1, 2, 3, 4)}
    assert kept == {1: "held", 2: "not checkable", 3: "not checkable", 4: "held"}
