"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): two agents as two small trees on one frozen base.

A projection x @ W becomes x @ W + alpha / rank * (x @ a) @ b. The base keeps the form of plain parameters; an
agent's adapters are {"layers": {projection: {"a": [L, I, r], "b": [L, r, O]}}}, float32.
Legend: L layers, I and O all axes in and out of a projection, r rank.
"""

from typing import Any

import jax

from coevo_jax.config.options import LoraConfig, ModelConfig
from coevo_jax.models.transformer import Params, Transformer, init_params, init_variables


def model_variables(params: Params, frozen: Params) -> dict[str, Any]:
    """The variables of `Transformer.apply`: all parameters, or a frozen base with adapters."""
    return {"params": frozen, "adapters": params} if frozen else {"params": params}


def plain(model: Transformer) -> Transformer:
    """The same model without adapters: for the base, or for an agent whose adapters are merged."""
    return model.clone(config=model.config.model_copy(update={"lora": None}))


def init_trained(model: Transformer, key: jax.Array) -> Params:
    """Random parameters of what is trained, with logical axes: adapters if the model has them, else all.

    Fresh adapters change nothing: every `b` is zero.
    """
    if model.config.lora is None:
        return init_params(model, key)
    # Folded, so that no `a` repeats the random numbers of a base that was made with the same key.
    return init_variables(model, jax.random.fold_in(key, 1))["adapters"]


def whole_params(params: Params, frozen: Params, config: ModelConfig) -> Params:
    """All parameters of an agent: its own, or the base with its adapters merged (float32)."""
    return merge(frozen, params, config.lora) if config.lora is not None and frozen else params


def merge(frozen: Params, adapters: Params, lora: LoraConfig) -> Params:
    """Plain parameters that compute what the base with these adapters computes; new arrays, float32 sums."""
    return _merge(frozen, adapters, lora.scale)


@jax.jit
def _merge(frozen: Params, adapters: Params, scale: float) -> Params:
    layers = dict(frozen["layers"])
    for name, factors in adapters["layers"].items():
        a, b = factors["a"], factors["b"]
        contracted = (((a.ndim - 1,), (1,)), ((0,), (0,)))  # over the rank, layer by layer
        share = jax.lax.dot_general(a, b, contracted, precision=jax.lax.Precision.HIGHEST)
        layers[name] = layers[name] + scale * share
    return {**frozen, "layers": layers}
