"""A run that learned from its test episodes, audited whole and broken; its steps by hand."""

import json

import jax
import numpy as np
import pytest

from coevo_jax.audit.adaptation import step_counts
from coevo_jax.audit.adapted_forward import steps
from coevo_jax.audit.reading import Episode
from coevo_jax.config.adapt import AdaptOptions
from coevo_jax.config.options import ModelConfig
from coevo_jax.models.transformer import Transformer, output_logits
from tests.audit.breaking import (
    assert_named_alone,
    broken,
    collected,
    copy,
    edit_lines,
    edit_metrics,
    edit_record,
    finished_once,
    states,
)
from tests.fresh import fresh_params

PHASE = "round-01/evaluate_adapted"
FILE = "adaptations/round-01-adapted.jsonl"
SHORT = (
    *("recipe=atena", "explore.tasks=['40:46']", "evaluate.tasks=':6'", "model.num_layers=1"),
    *("agents={target: {learning_rate: [1e-3]}}", "warm_start.epochs=8"),
    *(
        "recipe.evaluate_adapted.adapt.learning_rate_queried=1e-3",
        "recipe.evaluate_adapted.adapt.head_bias=-0.1",
    ),
    *(
        "recipe.evaluate_adapted.adapt.query_above=1.1",
        "recipe.evaluate_adapted.adapt.learning_rate_predicted=1e-3",
    ),
)


def episode(tokens, wrote, reward=0.0, ending="failed"):
    return Episode(
        task_id="t",
        agent="target",
        sample=0,
        reward=reward,
        ending=ending,
        tokens=np.array(tokens, np.int32),
        agent_mask=np.array(wrote, bool),
    )


def test_counts_by_hand():
    one, other = episode([1, 2], [0, 1], 1.0, "solved"), episode([1, 2, 3], [0, 1, 1])
    lines = [
        {"loss": 1.0, "queried": True, "success": True},
        {"loss": 1.0, "queried": False, "success": True},
        {"tokens": 0},
    ]
    found = step_counts(lines, [one, other, episode([1], [0], ending="fault")])
    assert found == {
        **{"episodes": 3, "steps": 2, "queries": 1, "predicted": 1, "predicted_right": 0},
        "learned_tokens": 3,
    }


@pytest.mark.slow
def test_steps_by_hand():
    """Of a model with two words to say: what it says first, and which way each weight goes."""
    config = ModelConfig(
        hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, intermediate_size=8
    )
    model = Transformer(config, 5)
    params = fresh_params(model, 0)
    played = episode([1, 2, 3, 4], [0, 0, 1, 0], 1.0, "solved")
    options = AdaptOptions(mixing=0.5, head_weight=0.25, head_bias=0.2, weight_decay=0.0)
    first, second, third = steps(
        model, {"params": params}, options, [(played, True, 1e-3), (played, None, 1.0), (played, False, 1e-3)]
    )
    hidden = model.apply({"params": params}, np.array([[1, 2]]), np.array([[0, 1]]), np.array([[2, 2]]))
    p = np.asarray(jax.nn.softmax(output_logits(params, hidden[0, 1])), float)
    q = 0.5 * np.eye(5)[3] + 0.5 * p
    mixed = -(q * np.log(q)).sum()
    np.testing.assert_allclose(first.logps, [np.log(p[3])], rtol=1e-5)
    np.testing.assert_allclose(first.uncertainty, -(p * np.log(p)).sum(), rtol=1e-5)
    np.testing.assert_allclose(first.mixture_entropy, mixed, rtol=1e-5)
    np.testing.assert_allclose(first.prediction, 0.2, rtol=1e-6)
    np.testing.assert_allclose(first.loss, mixed + 0.25 * np.log1p(np.exp(-0.2)), rtol=1e-5)
    assert second.uncertainty < first.uncertainty and second.prediction > first.prediction
    assert third.uncertainty == second.uncertainty  # what was no step moved nothing
    np.testing.assert_allclose(
        third.loss, -third.mixture_entropy + 0.25 * np.log1p(np.exp(third.prediction)), rtol=1e-5
    )


pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_once(tmp_path_factory, *SHORT)


@pytest.mark.slow
def test_the_audit_holds_on_a_run(run):
    found = states(run)
    assert not [name for name, state in found.items() if state != "held"]
    assert {f"adaptation/{PHASE}", f"logps/{PHASE}", f"whose/{PHASE}"} <= set(found)
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    assert {line["queried"] for line in lines} == {True, False}  # both rules were at work


EDITS = {}
breaks = collected(EDITS)


def edit_line(run, place, edit):
    """Change a line of the record; what is derived from it is named, too."""

    def change(lines):
        line = json.loads(lines[place])
        edit(line)
        lines[place] = json.dumps(line)

    edit_lines(run, FILE, change)


@breaks(f"adaptation/{PHASE}", f"logps/{PHASE}")
def a_loss_that_was_not(run):
    edit_line(run, 1, lambda line: line.update(loss=line["loss"] + 0.01))


@breaks(f"adaptation/{PHASE}", f"logps/{PHASE}")
def an_entropy_that_was_not(run):
    edit_line(run, 2, lambda line: line.update(uncertainty=line["uncertainty"] * 1.01))


@breaks(f"adaptation/{PHASE}")
def queries_that_were_not(run):
    edit_record(run, PHASE, lambda one: one["records"]["adaptation"].update(queries=0))


@breaks("report/results.json")
def a_number_that_does_not_say_what_it_used(run):
    path = run / "results.json"
    content = json.loads(path.read_text())
    for entry in content["evaluations"]:
        entry.pop("test_feedback", None)
    path.unlink()
    path.write_text(json.dumps(content))


@breaks("report/report.html")
def a_page_that_does_not_say_it(run):
    path = run / "report.html"
    text = path.read_text().replace("Target, adapted (uses test feedback)", "Target, adapted")
    path.unlink()
    path.write_text(text)


@breaks(f"adaptation/{PHASE}")
def a_log_of_another_rate(run):
    edit_metrics(run, PHASE, "adapt/learning_rate", lambda rate: rate * 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_what_is_broken_is_named(run, tmp_path, name):
    edit, names = EDITS[name]
    edited = copy(run, tmp_path)
    edit(edited)
    assert_named_alone(edited, names)


@pytest.mark.slow
def test_steps_that_were_not_taken_are_found(run, tmp_path):
    """The log-probabilities of the second episode are those of weights after the first one's step."""
    edited = copy(run, tmp_path)
    edit_line(edited, 0, lambda line: line.update(learning_rate=line["learning_rate"] * 3))
    found = broken(edited)
    assert "log-probabilities that differ" in found[f"logps/{PHASE}"] and ":2:" in found[f"logps/{PHASE}"]
