"""From an agent's options to its loss: every option changes something, and idle ones are refused."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.idle import WITHOUT_REFERENCE
from coevo_jax.config.options import MeshConfig, ModelConfig, OptimizerConfig
from coevo_jax.config.recipe import KindWeights
from coevo_jax.config.strict import ConfigError, validate
from coevo_jax.learning.agent_loss import agent_loss
from coevo_jax.learning.loss_calls import call_loss
from coevo_jax.learning.loss_names import LOSS_NAMES
from coevo_jax.learning.loss_options import resolve_loss
from coevo_jax.learning.objective import AgentLoss, objective
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES
from coevo_jax.learning.train_state import init_state, state_shardings
from coevo_jax.learning.train_step import StepPrograms, jit_step, take_step
from coevo_jax.models.attention_kinds import choose_attention
from coevo_jax.models.transformer import Transformer
from coevo_jax.sharding import make_mesh
from tests.learning.packed import VOCAB, one_batch, packed, random_pairs

EVERY_KIND = {kind: {} for kind in ("expert_target", "expert_failure", "failure_failure")}
BETA = np.float32(0.5)

OWN_LOSS = """\
import jax.numpy as jnp

def steep(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta, slope: float = 2.0):
    return -slope * beta * (policy_chosen - reference_chosen - policy_rejected + reference_rejected)

def reduced(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta):
    return jnp.mean(policy_rejected - policy_chosen)
"""


def loss_of(name: str, pairs: dict = EVERY_KIND, **values):
    options = validate(AgentConfig, values, "test")
    kinds = {kind: validate(KindWeights, weights, "test") for kind, weights in pairs.items()}
    return agent_loss(options, kinds, tuple(EVERY_KIND), f"agents.{name}")


def of(**values) -> AgentLoss:
    return loss_of("target", **values)


def test_the_names_that_are_checked_without_jax_are_those_of_the_losses():
    assert tuple(PREFERENCE_LOSSES) == LOSS_NAMES


@pytest.fixture(scope="module")
def batch():
    made = one_batch()
    rng = np.random.default_rng(3)
    return replace(made, reference_logps=rng.normal(-30, 2, made.reference_logps.shape).astype(np.float32))


def value(loss: AgentLoss, batch, kind: str = "") -> float:
    """Sum of the pairs' losses at policy log-probabilities that differ from the reference."""
    rng = np.random.default_rng(4)
    logps = jnp.asarray(batch.reference_logps + rng.normal(0, 2, batch.reference_logps.shape), jnp.float32)
    confidence = -jnp.abs(logps) / 30 if loss.wpo else None
    _, metrics = objective(logps, confidence, batch, beta=jnp.float32(0.5), loss=loss)
    return float(metrics["loss/pair" + kind][0])


@pytest.fixture
def own_package(tmp_path, monkeypatch):
    """A package of the user's own in the current directory, found as `python -m` finds it."""
    (tmp_path / "ownpackage").mkdir()
    (tmp_path / "ownpackage" / "losses.py").write_text(OWN_LOSS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "ownpackage.losses"
    sys.modules.pop("ownpackage.losses")
    sys.modules.pop("ownpackage")


CHANGES = {
    "loss": {"loss": "ipo"},
    "mixture": {"loss": {"sigmoid": 0.8, "sft": 0.2}},
    "option": {"loss_options": {"sigmoid": {"label_smoothing": 0.2}}},
    "divergence": {"divergence": "js"},
    "alpha": {"divergence": "alpha"},
    "other alpha": {"divergence": "alpha", "divergence_alpha": 0.3},
    "one kind": {"pairs": EVERY_KIND | {"failure_failure": {"loss": "ipo"}}},
    "wpo": {"wpo": True},
}


def test_every_option_changes_the_loss(batch):
    values = {name: value(of(**changed), batch) for name, changed in CHANGES.items()}
    values["none"] = value(of(), batch)
    assert len({round(number, 4) for number in values.values()}) == len(values), values


def test_a_mixture_is_the_weighted_sum_of_its_losses(batch):
    parts = {name: value(of(loss=name), batch) for name in ("sigmoid", "ipo")}
    mixed = value(of(loss={"ipo": 0.2, "sigmoid": 0.8}), batch)
    assert mixed == pytest.approx(0.8 * parts["sigmoid"] + 0.2 * parts["ipo"], rel=1e-5)


def test_a_kind_may_have_a_loss_of_its_own(batch):
    found = of(pairs=EVERY_KIND | {"expert_failure": {"loss": {"hinge": 0.5, "ipo": 0.5}}}, loss="apo_zero")
    for kind in EVERY_KIND:
        alone = {"hinge": 0.5, "ipo": 0.5} if kind == "expert_failure" else "apo_zero"
        assert value(found, batch, f"/{kind}") == pytest.approx(value(of(loss=alone), batch, f"/{kind}"))


def test_options_reach_their_loss_wherever_it_is_named(batch):
    given = {"ipo": {"average": False}}
    for values in (
        {"loss": "ipo"},
        {"loss": {"ipo": 0.5, "sigmoid": 0.5}},
        {"pairs": EVERY_KIND | {"expert_target": {"loss": "ipo"}}},
    ):
        assert value(of(**values), batch) != value(of(**values, loss_options=given), batch)


def test_a_users_own_loss_is_found_in_the_current_directory(batch, own_package):
    name = f"{own_package}:steep"
    plain, steeper = of(loss=name), of(loss=name, loss_options={name: {"slope": 6}})
    assert value(steeper, batch) == pytest.approx(3 * value(plain, batch), rel=1e-5)
    assert of(loss=name, divergence="js") != plain == of(loss=name)
    assert of(loss={name: 0.5, "sft": 0.5}).coupled


def test_equal_options_give_equal_losses():
    one = of(loss={"sigmoid": 0.8, "sft": 0.2}, wpo=True, divergence="alpha")
    other = of(loss={"sft": 0.2, "sigmoid": 0.8}, wpo=True, divergence="alpha", divergence_alpha=0.5)
    assert one == other and hash(one) == hash(other)
    # What only a kind that is left out would see makes no other program.
    failure = of(pairs={"failure_failure": {"loss": "ipo"}})
    assert failure == of(pairs={"failure_failure": {}}, loss="ipo") == of(loss="ipo")
    assert of(learning_rate=[1e-3], beta=[0.2], turn_discount=0.5, ld_alpha=0.5) == of()


REFUSED = {
    "WPO beside sorted pairs": ({"loss": "aot", "wpo": True}, r"^agents\.target\.wpo: found true beside aot"),
    "a name": (
        {"loss": "sigmoyd"},
        r"^agents\.target\.loss: found the loss 'sigmoyd' \(did you mean 'sigmoid'\?\), expected .* odpo",
    ),
    "a name that is like none": ({"loss": "zzz"}, r"'zzz', expected .* one of sigmoid, hinge, ipo, "),
    "a part of a mixture": ({"loss": {"sigmoid": 1, "hing": 1}}, r"'hing' \(did you mean 'hinge'\?\)"),
    "a weight": ({"loss": {"sigmoid": 0}}, r"^agents\.target\.loss: found \{'sigmoid': 0\.0\}, .*above 0"),
    "no part": ({"loss": {}}, r"^agents\.target\.loss: found \{\}, expected"),
    "a kind's name": (
        {"pairs": EVERY_KIND | {"failure_failure": {"loss": "ipoo"}}},
        r"^recipe: loss of failure_failure: .*did you mean 'ipo'",
    ),
    "an option": (
        {"loss_options": {"sigmoid": {"label_smothing": 0.1}}},
        r"^agents\.target\.loss: the loss 'sigmoid': no option 'label_smothing' .*'label_smoothing'",
    ),
    "an option's type": (
        {"loss_options": {"sigmoid": {"label_smoothing": True}}},
        "found True, expected a fl",
    ),
    "an option's value": (
        {"loss_options": {"sigmoid": {"label_smoothing": 0.7}}},
        "label_smoothing: found 0.7",
    ),
    "options of another loss": (
        {"loss": "ipo", "loss_options": {"sigmoid": {}}},
        r"^agents\.target\.loss_options\.sigmoid: this loss is not in use; in use: ipo",
    ),
    "options of a loss that only a kind without preference names": (
        {"pairs": {"expert_target": {}}, "loss_options": {"kto": {}}},
        r"target\.loss_options\.kto: this loss is not in use",
    ),
    "a divergence of a loss without": (
        {"loss": "kto", "divergence": "js"},
        r"^agents\.target\.loss: .*'kto' has no form",
    ),
    "a divergence of nothing": (
        {"loss": "sft", "divergence": "js"},
        r"^agents\.target\.divergence does nothing: sft re",
    ),
    "a refreshed reference that nothing reads": (
        {"loss": {"simpo": 0.5, "sft": 0.5}, "reference_every": 5},
        r"^agents\.target\.reference_every does nothing: sft, simpo reads no reference",
    ),
    "a module": ({"loss": "nowhere_at_all:f"}, r"importing 'nowhere_at_all' failed"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_wrong_or_would_do_nothing_is_refused(case):
    values, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words):
        of(**values)


def test_an_own_loss_of_another_shape_is_refused_by_its_key(own_package):
    with pytest.raises(
        ConfigError, match=r"^agents\.failure\.loss: .*returned float32 \[\], expected .*float32 \[3\]"
    ):
        loss_of("failure", loss=f"{own_package}:reduced")


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_the_losses_said_to_read_no_reference_are_those_that_do_not(name):
    rng = np.random.default_rng(5)
    policy = [jnp.asarray(rng.normal(-20, 3, 4), jnp.float32) for _ in range(2)]
    arrays = {
        "chosen_tokens": jnp.full(4, 9.0),
        "rejected_tokens": jnp.full(4, 7.0),
        "chosen_reward": jnp.ones(4),
        "rejected_reward": jnp.zeros(4),
        "weight": jnp.ones(4),
    }
    found = []
    for _ in range(2):
        reference = [jnp.asarray(rng.normal(-20, 3, 4), jnp.float32) for _ in range(2)]
        found.append(np.asarray(call_loss(resolve_loss(name, {}), (*policy, *reference), BETA, arrays)))
    assert np.array_equal(*found) == (name in WITHOUT_REFERENCE)


@pytest.fixture(scope="module")
def compiled():
    """The parts of a step on a tiny model that no loss stands in, a maker of the whole, and a fresh state."""
    config = ModelConfig(
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        intermediate_size=32,
        attention="dense",
    )
    mesh = make_mesh(MeshConfig())
    model = Transformer(config, VOCAB, choose_attention(config, mesh))
    optimizer = make_optimizer(OptimizerConfig())
    shardings = state_shardings(model, optimizer, mesh)

    def make(loss: AgentLoss) -> StepPrograms:
        return jit_step(model, optimizer, loss, mesh, shardings, {})

    return make, make(of()), lambda: init_state(model, optimizer, shardings, 3)


def assert_learned(before, after, metrics):
    assert all(np.isfinite(float(number)) for pair in metrics.values() for number in pair)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    moved = [not np.array_equal(*both) for both in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    assert any(moved)


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("sigmoid", "orpo", "aot_unpaired") else pytest.param(n, marks=pytest.mark.slow)
        for n in sorted(PREFERENCE_LOSSES)
    ],
)
def test_every_loss_trains_a_step(compiled, batch, name):
    """In the two passes of coupled losses, whose parts around the loss are compiled for all names once."""
    _, programs, new_state = compiled
    state = new_state()
    before = jax.device_get(state.params)
    logps, _ = programs.score(state.params, {}, batch)
    d_logps, metrics = jax.grad(objective, has_aux=True)(logps, None, batch, beta=BETA, loss=of(loss=name))
    grads = programs.pull(programs.zeros(state.params), state.params, {}, batch, d_logps)
    state, norm = programs.apply(state, grads, np.float32(1e-3))
    assert_learned(before, jax.device_get(state.params), metrics | {"grad_norm": (norm, 1)})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))
def test_every_loss_compiles_and_trains_a_step_of_several_microbatches(compiled, name):
    make, _, new_state = compiled
    plan = packed(random_pairs(6), rows=2, pairs=8, step_pairs=100)
    assert len(plan.steps[0]) > 1
    state = new_state()
    before = jax.device_get(state.params)
    batches = [plan.batches[number] for number in plan.steps[0]]
    state, metrics = take_step(make(of(loss=name)), state, {}, batches, BETA, np.float32(1e-3))
    assert_learned(before, jax.device_get(state.params), metrics)


def test_pairs_that_are_not_there_leave_gradients_finite(tmp_path, monkeypatch):
    """A loss may divide by the reward gap: padding has none, and 0 times infinity is not a number."""
    (tmp_path / "by_gap.py").write_text(
        "def by_gap(policy_chosen, policy_rejected, reference_chosen, reference_rejected, *, beta,\n"
        "           chosen_reward, rejected_reward):\n"
        "    return (policy_rejected - policy_chosen) / (chosen_reward - rejected_reward)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loss = of(loss="by_gap:by_gap")
    made = one_batch()
    real = made.weight > 0
    assert not real.all()
    logps = jnp.full(made.reference_logps.shape, -3.0, jnp.float32)
    gradient = jax.grad(lambda logps: objective(logps, None, made, beta=BETA, loss=loss)[0])(logps)
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()
    nothing = replace(made, weight=np.zeros_like(made.weight), sft_weight=np.zeros_like(made.sft_weight))
    gradient = jax.grad(lambda logps: objective(logps, None, nothing, beta=BETA, loss=loss)[0])(logps)
    assert (gradient == 0).all()


def test_length_normalised_losses_divide_by_the_length_whatever_the_tokens_weigh():
    """60 tokens against 6 at -1 nat each, LD-DPO's alpha 0: SimPO sees -0.1 and -1 nats a token."""
    loss = of(loss="simpo", ld_alpha=0.0)
    long, short = np.float32(-6), np.float32(-6)  # of the long side, only as many tokens as the short one has
    arrays = {
        "chosen_tokens": np.float32([60]),
        "rejected_tokens": np.float32([6]),
        "weight": np.float32([1]),
    }
    sides = tuple(jnp.asarray([side], jnp.float32) for side in (long, short, 0, 0))
    value = call_loss(loss.by_kind[0], sides, 2.0, {k: jnp.asarray(v) for k, v in arrays.items()})
    assert value[0] == pytest.approx(0.241, abs=1e-3)


def test_the_imitated_token_mean_does_not_depend_on_packing():
    """An expert that stands in two microbatches counts as often as in one."""
    pair_set = random_pairs(5)
    loss, found = of(), []
    for shape in ({}, {"rows": 1, "step_pairs": 100}, {"rows": 2, "step_pairs": 100, "row_length": 64}):
        plan = packed(pair_set, **shape)
        trajectory_logps = np.random.default_rng(0).normal(-20, 3, len(pair_set.trajectories))
        sums = np.zeros(2)
        for batch, views in zip(plan.batches, plan.views, strict=True):
            logps = np.zeros(batch.reference_logps.shape, np.float32)
            for n, trajectory in views:
                logps[n] = trajectory_logps[trajectory]
            _, metrics = objective(jnp.asarray(logps), None, batch, beta=BETA, loss=loss)
            sums += [float(part) for part in metrics["sft/token_logp"]]
        found.append(sums[0] / sums[1])
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-5)
