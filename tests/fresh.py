"""Random parameters of any model, made by one compiled program: operation by operation it takes seconds."""

from functools import partial

import flax.linen as nn
import jax

from coevo_jax.models.lora import init_trained
from coevo_jax.models.transformer import init_params


@partial(jax.jit, static_argnums=0)
def fresh_params(model, seed=0):
    return nn.unbox(init_params(model, jax.random.key(seed)))


@partial(jax.jit, static_argnums=0)
def fresh_adapters(model, seed=0):
    return nn.unbox(init_trained(model, jax.random.key(seed)))
