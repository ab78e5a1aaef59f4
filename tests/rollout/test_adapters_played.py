"""What adapters learned is what is played, also in bfloat16, where merged weights would round it away."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import LoraConfig, MeshConfig, ModelConfig, OptimizerConfig, RolloutConfig
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.lora import merge, model_variables, plain
from coevo_jax.models.transformer import Transformer, output_logits
from coevo_jax.rollout.placement import place_rollouts, rollout_weights
from coevo_jax.sampling.engine import Engine, Request, Sampling
from coevo_jax.sharding import make_mesh

VOCAB, LENGTH, PROMPT = 96, 64, 8
LORA = LoraConfig(rank=32, alpha=32.0, warm_start="adapter", base_dtype="bfloat16")
STEP = 2e-4  # of every number of `b`
MODEL = Transformer(
    ModelConfig(
        hidden_size=64,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=128,
        dtype="bfloat16",
        lora=LORA,
    ),
    VOCAB,
)
EXACT = MODEL.clone(config=MODEL.config.model_copy(update={"dtype": "float32"}))
SCRIPT = np.random.default_rng(5).integers(0, VOCAB, LENGTH).astype(np.int32)


@cache
def scorer(model):
    """Log-probability of each token behind the prompt, by the forward pass that learning takes."""
    places, until = np.arange(LENGTH)[None], np.full((1, LENGTH), LENGTH)

    @jax.jit
    def score(params, frozen):
        variables = model_variables(params, frozen)
        hidden = model.apply(variables, SCRIPT[None], places, until)
        scores = jax.nn.log_softmax(output_logits(variables["params"], hidden))
        return scores[0, jnp.arange(PROMPT - 1, LENGTH - 1), SCRIPT[PROMPT:]]

    return score


def learned(fresh, frozen):
    """Adapters that a step has moved towards the script."""
    slopes = jax.grad(lambda adapters: scorer(EXACT)(adapters, frozen).sum())(fresh)["layers"]
    return {
        "layers": {
            name: {"a": factors["a"], "b": factors["b"] + STEP * jnp.sign(slopes[name]["b"])}
            for name, factors in fresh["layers"].items()
        }
    }


@pytest.mark.slow
def test_what_is_played_in_bfloat16_is_what_was_learned():
    """At such rates a merged weight moves by less than half of what bfloat16 resolves of it, and stays."""
    learner = make_learner(MODEL, make_optimizer(OptimizerConfig()), make_mesh(MeshConfig()))
    frozen, fresh = learner.init_frozen(3), learner.init(3).params
    moved = learned(fresh, frozen)
    placement = place_rollouts(learner, RolloutConfig(), make_mesh(MeshConfig()))
    options = RolloutConfig(slots=1, max_tokens=LENGTH, max_turn_tokens=LENGTH, decode_block=LENGTH)
    engine = Engine(MODEL, options, end_id=-1, sharding=placement.slots)

    def recorded(adapters):
        weights = engine.load(*rollout_weights(placement, frozen, [adapters]))
        engine.begin(weights)
        engine.prefill(weights, {0: SCRIPT[:PROMPT]}, frozenset({0}))
        request = Request(budget=LENGTH - PROMPT, ids=(0, 0, 0, 0), script=SCRIPT[PROMPT:].tolist())
        sampling = Sampling(root=jax.random.key(0), temperature=1.0)
        return np.array(engine.decode(weights, {0: request}, sampling, quota=1).fetch()[0].logps)

    before, after = (np.asarray(scorer(EXACT)(own, frozen)) for own in (fresh, moved))
    learners = np.asarray(scorer(MODEL)(moved, frozen))
    played, unmoved = recorded(moved), recorded(fresh)
    noise = np.sqrt(np.mean((learners - after) ** 2))  # of bfloat16 itself
    assert np.sqrt(np.mean((played - learners) ** 2)) < noise < 0.03
    assert np.abs(played - learners).max() < 0.05
    gained, told = (after - before).sum(), (played - unmoved).sum()
    own = (learners - np.asarray(scorer(MODEL)(fresh, frozen))).sum()
    assert abs(told - own) < 2 * noise * len(played) ** 0.5 < 0.5 * gained
    # What merging into the base's own type would have left of it.
    merged = jax.tree.map(lambda x: x.astype(jnp.bfloat16), merge(frozen, moved, LORA))
    names = LORA.target_modules
    stays = [np.mean(np.asarray(merged["layers"][name] == frozen["layers"][name])) for name in names]
    rounded = scorer(plain(EXACT))(jax.tree.map(lambda x: x.astype(jnp.float32), merged), {})
    assert min(stays) > 0.8 and (np.asarray(rounded) - before).sum() < 0.5 * gained
