"""The implementations of attention over packed rows, by name, and the choice among them."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from coevo_jax.models.attention import dense_attention
from coevo_jax.models.tree_attention import tree_attention
from coevo_jax.sharding import over_heads

# (q [B, T, H, h], k [B, T, K, h], v [B, T, K, h], visible_until [B, T]) -> [B, T, H, h]
Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]

ATTENTIONS: dict[str, Attention] = {"dense": dense_attention, "blocks": tree_attention}


def choose_attention(name: str, mesh: Mesh) -> Attention:
    """An attention by name; "auto" takes the fastest of the mesh's platform.

    On several devices each works on its own rows and heads, without communication.
    """
    if name == "auto":
        name = "blocks" if mesh.devices.flat[0].platform == "cpu" else "dense"
    attention = ATTENTIONS[name]
    return attention if mesh.size == 1 else over_heads(mesh, attention)
