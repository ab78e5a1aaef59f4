"""The implementations of attention over packed rows, by name, and the choice among them."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from coevo_jax.config.options import ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.flash_attention import flash_attention
from coevo_jax.models.tree_attention import tree_attention
from coevo_jax.sharding import over_heads

# (q [B, T, H, h], k [B, T, K, h], v [B, T, K, h], visible_until [B, T], window or None) -> [B, T, H, h]
Attention = Callable[..., jax.Array]

ATTENTIONS: dict[str, Attention] = {
    "dense": dense_attention,
    "blocks": tree_attention,
    "flash": flash_attention,
}
OF_PLATFORM = {"cpu": "blocks", "tpu": "flash"}  # any other: dense


def choose_attention(config: ModelConfig, mesh: Mesh) -> Attention:
    """The attention that `config.attention` names; "auto" takes that of the mesh's platform.

    On several devices each works on its own rows and heads, without communication.

    Raises:
      ConfigError: the kernels of "flash" do not run on this platform, or the model has sliding windows.
    """
    platform, name = mesh.devices.flat[0].platform, config.attention
    windows = "sliding" in config.layer_types
    if name == "auto":
        name = OF_PLATFORM.get(platform, "dense")
        name = "dense" if name == "flash" and windows else name
    if name == "flash" and windows:
        raise ConfigError(
            "model.attention: flash has no sliding windows (model.layer_types); expected auto, dense or "
            "blocks"
        )
    if name == "flash" and platform not in OF_PLATFORM:
        raise ConfigError(
            f"model.attention: flash has kernels for TPUs (interpreted on CPUs), found {platform}: "
            "expected auto, dense or blocks"
        )
    attention = ATTENTIONS[name]
    return attention if mesh.size == 1 else over_heads(mesh, attention)
