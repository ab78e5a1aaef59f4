"""The model that a module's CONFIG and VOCAB describe, and its parameters."""

import flax.linen as nn
import jax
import pytest

from coevo_jax.models.transformer import Transformer, init_params


@pytest.fixture(scope="module")
def model(request):
    return Transformer(request.module.CONFIG, request.module.VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(lambda key: nn.unbox(init_params(model, key)))(jax.random.key(0))
