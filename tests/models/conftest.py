"""The model that a module's CONFIG and VOCAB describe, and its parameters."""

import pytest

from coevo_jax.models.transformer import Transformer
from tests.fresh import fresh_params


@pytest.fixture(scope="module")
def model(request):
    return Transformer(request.module.CONFIG, request.module.VOCAB)


@pytest.fixture(scope="module")
def params(model):
    return fresh_params(model)
