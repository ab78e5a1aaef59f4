"""Roll-outs over several devices of a host: the copy, its placement, and that the text stays the same."""

from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import LoraConfig, MeshConfig, ModelConfig, OptimizerConfig, RolloutConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.optimizer import make_optimizer
from coevo_jax.learning.train_state import make_learner
from coevo_jax.models.transformer import Transformer
from coevo_jax.rollout.placement import place_rollouts, rollout_weights
from coevo_jax.sampling.engine import Engine, Request, Sampling
from coevo_jax.sampling.engine_programs import jit_engine
from coevo_jax.sharding import make_mesh

VOCAB, SLOTS = 96, 3
MODEL = ModelConfig(
    hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=64
)
GREEDY = Sampling(root=jax.random.key(0), temperature=0.0, top_p=1.0)


def placed(rollout: int, model: ModelConfig = MODEL, **axes):
    mesh = make_mesh(MeshConfig(**axes), model.num_kv_heads)
    learner = make_learner(Transformer(model, VOCAB), make_optimizer(OptimizerConfig()), mesh)
    return learner, place_rollouts(learner, RolloutConfig(tensor=rollout), mesh)


def greedy_text(rollout: int, **axes) -> list[list[int]]:
    """Two turns of every slot, with an observation in between."""
    learner, placement = placed(rollout, **axes)
    config = RolloutConfig(slots=SLOTS, max_tokens=96, max_turn_tokens=20, decode_block=20)
    programs = unwrap(jit_engine)(learner.model, SLOTS, placement.slots)  # of its own, to count them
    engine = Engine(learner.model, config, end_id=-1, sharding=placement.slots, programs=programs)
    weights = engine.load(*rollout_weights(placement, {}, [learner.init(3).params]))
    rng = np.random.default_rng(7)
    text = []
    for turn in range(2):
        engine.prefill(
            weights,
            {slot: rng.integers(0, VOCAB, 12 + slot) for slot in range(SLOTS)},
            frozenset(range(SLOTS)) if turn == 0 else frozenset(),
        )
        requests = {slot: Request(budget=20, ids=(0, slot, 0, turn)) for slot in range(SLOTS)}
        written = engine.decode(weights, requests, GREEDY, quota=SLOTS).fetch()
        text += [written[slot].tokens for slot in range(SLOTS)]
    assert engine.compilations() == 2  # what goes in lies as what comes out: nothing is compiled twice
    return text


@pytest.mark.slow
def test_greedy_text_is_the_same_on_one_device_and_over_a_hosts_devices():
    alone = greedy_text(1)
    assert len(alone) == 2 * SLOTS and all(len(turn) == 20 for turn in alone)
    assert len({tuple(turn) for turn in alone}) > SLOTS
    assert greedy_text(2, data=2, fsdp=2, tensor=2) == alone
    assert greedy_text(4, fsdp=8) == alone  # two key/value heads, each on two devices


def test_the_copy_is_split_over_the_hosts_first_devices_and_the_cache_by_heads():
    learner, placement = placed(2, data=2, fsdp=2, tensor=2)
    params, _ = rollout_weights(placement, {}, [learner.init(0).params])
    assert len(params["layers"]) == 2
    gate = params["layers"][1]["gate"]
    assert [device.id for device in placement.mesh.devices.flat] == [0, 1]
    assert {shard.device.id: shard.data.shape for shard in gate.addressable_shards} == {
        0: (32, 32),
        1: (32, 32),
    }
    assert {shard.data.shape for shard in params["embedding"].addressable_shards} == {(48, 32)}
    assert placement.slots.cache.keys[0].shard_shape((SLOTS, 2, 16, 8)) == (SLOTS, 1, 16, 8)
    shared = placed(4, fsdp=8)[1]
    assert shared.slots.cache.keys[0].shard_shape((SLOTS, 2, 16, 8)) == (SLOTS, 1, 16, 8)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_the_copy_holds_weights_in_the_compute_type_and_norms_in_float32(lora):
    """Of an agent that is adapters those of the base: nothing is merged, and adapters lie beside it."""
    learner, placement = placed(1, MODEL.model_copy(update={"dtype": "bfloat16", "lora": lora}), fsdp=2)
    frozen, params = learner.init_frozen(0) if lora else {}, learner.init(1).params
    copy, adapters = rollout_weights(placement, frozen, [params])
    assert copy["final_norm"]["scale"].dtype == jnp.float32
    assert copy["layers"][1]["attention_norm"]["scale"].dtype == jnp.float32
    assert copy["layers"][1]["gate"].dtype == copy["embedding"].dtype == jnp.bfloat16
    for name in ("gate", "query"):
        whole = np.asarray((frozen or params)["layers"][name])
        for layer, expected in enumerate(whole.astype(jnp.bfloat16)):
            np.testing.assert_array_equal(copy["layers"][layer][name], expected)
    assert len(adapters) == bool(lora)
    for one in adapters:
        jax.tree.map(np.testing.assert_array_equal, one, params)


def test_a_copy_over_devices_that_the_host_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"rollout.tensor: found 4, expected a divisor of the 2 devices"):
        placed(4, fsdp=2)
