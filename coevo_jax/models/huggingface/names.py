"""The tensors of a Hugging Face checkpoint for each of our parameters.

A Hugging Face weight is [out, in], one per layer; ours is [*in, *out] with all layers stacked in front.
Rotary layout and norms agree. Which tensors there are follows from the switches of `ModelConfig` alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from coevo_jax.config.options import ModelConfig
from coevo_jax.models.transformer import BIASED, PROJECTIONS, Params, axis_sizes

PROJECTION_NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
QK_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
SANDWICH_NORMS = {  # with `post_norms` the second name means what it says
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A parameter of ours and the tensors that hold it."""

    path: tuple[str, ...]  # in the parameter tree
    name: str  # of the tensor; {layer} where there is one per layer
    into: int  # leading axes of ours, behind the layers, that go in; 0: nothing is transposed
    shape: tuple[int, ...]  # of one layer of ours
    layers: int | None  # None: not stacked

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of the tensor as the checkpoint stores it."""
        if not self.into:
            return (int(np.prod(self.shape)),) if self.layers else self.shape
        into, out = self.shape[: self.into], self.shape[self.into :]
        return int(np.prod(out)), int(np.prod(into))

    def tensors(self) -> Iterator[tuple[int | None, str]]:
        """The layer and name of every tensor."""
        if self.layers is None:
            yield None, self.name
        for layer in range(self.layers or 0):
            yield layer, self.name.format(layer=layer)

    def ours(self, tensor: jax.Array) -> jax.Array:
        """A stored tensor in the form of one layer of the parameter."""
        return (tensor.T if self.into else tensor).reshape(self.shape)

    def theirs(self, parameter: np.ndarray) -> np.ndarray:
        """One layer of the parameter in the form of a stored tensor."""
        if not self.into:
            return parameter.reshape(self.tensor_shape)
        return parameter.reshape(self.tensor_shape[::-1]).T

    def leaf(self, params: Params) -> Any:
        """The parameter itself, taken from a whole tree."""
        for key in self.path:
            params = params[key]
        return params


def entries(config: ModelConfig, vocab_size: int) -> tuple[Entry, ...]:
    """Every parameter of a whole model, in the order of a checkpoint's layers."""
    D = config.hidden_size
    table = (vocab_size, D)
    found = [
        Entry(path=("embedding",), name="model.embed_tokens.weight", into=0, shape=table, layers=None),
        Entry(path=("final_norm", "scale"), name="model.norm.weight", into=0, shape=(D,), layers=None),
    ]
    if not config.tie_embeddings:
        found.append(Entry(path=("head",), name="lm_head.weight", into=0, shape=table, layers=None))
    norms = {name: (theirs, D) for name, theirs in (SANDWICH_NORMS if config.post_norms else NORMS).items()}
    if config.qk_norm:
        norms |= {name: (theirs, config.head_dim) for name, theirs in QK_NORMS.items()}
    for name, (theirs, size) in norms.items():
        found.append(_of_layers(config, ("layers", name, "scale"), f"{theirs}.weight", 0, (size,)))
    for name, theirs in PROJECTION_NAMES.items():
        into, out = PROJECTIONS[name]
        shape = axis_sizes(config, into + out)
        found.append(_of_layers(config, ("layers", name), f"{theirs}.weight", len(into), shape))
    for name in BIASED if config.qkv_bias else ():
        shape = axis_sizes(config, PROJECTIONS[name][1])
        found.append(
            _of_layers(config, ("layers", f"{name}_bias"), f"{PROJECTION_NAMES[name]}.bias", 0, shape)
        )
    return tuple(found)


def _of_layers(
    config: ModelConfig, path: tuple[str, ...], name: str, into: int, shape: tuple[int, ...]
) -> Entry:
    return Entry(
        path=path, name=f"model.layers.{{layer}}.{name}", into=into, shape=shape, layers=config.num_layers
    )
