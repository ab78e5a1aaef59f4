"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): two agents as two small trees on one frozen base."""

from typing import Any

from coevo_jax.models.transformer import Params


def model_variables(params: Params, frozen: Params) -> dict[str, Any]:
    """What `Transformer.apply` takes: all parameters, or a frozen base with adapters."""
    return {"params": frozen, "adapters": params} if frozen else {"params": params}
