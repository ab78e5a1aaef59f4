"""The optimizer's parts: which parameters decay, and how long the warm-up is."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.config.options import LoraConfig, ModelConfig, OptimizerConfig
from coevo_jax.learning.optimizer import decayed, make_optimizer, warmup_steps
from coevo_jax.models.lora import init_trained
from coevo_jax.models.transformer import Transformer

SHAPE = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 8}
EVERYTHING = ModelConfig(**SHAPE, qkv_bias=True, qk_norm=True, post_norms=True, tie_embeddings=False)


def names(params) -> dict[str, jax.Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize("config", [EVERYTHING, ModelConfig(**SHAPE, lora=LoraConfig(rank=2))])
def test_matrices_decay_and_norms_and_biases_do_not(config):
    shapes = nn.unbox(jax.eval_shape(lambda: init_trained(Transformer(config, 32), jax.random.key(0))))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5))
    gradient = jax.tree.map(np.zeros_like, params)
    updates = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(gradient, params)
    left_alone = 0
    for name, update in names(updates).items():
        spared = "norm" in name or "bias" in name
        left_alone += spared
        np.testing.assert_array_equal(update, 0.0 if spared else 0.5, err_msg=name)
    assert left_alone == (0 if config.lora else len([n for n in names(params) if "norm" in n or "bias" in n]))
    assert any(names(decayed(params)).values())


def test_without_decay_nothing_is_added():
    params = {"scale": jnp.ones(3), "kernel": jnp.ones((3, 3))}
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(zeros, params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_warm_up_is_exact():
    assert warmup_steps(100, 0.07) == 7
    for steps in range(1, 121):
        for percent in range(100):
            exact = -(-steps * percent // 100)
            assert warmup_steps(steps, percent / 100) == exact == -(-Fraction(steps * percent, 100) // 1)
