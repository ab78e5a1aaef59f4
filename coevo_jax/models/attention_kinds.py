"""The implementations of attention over packed rows, by name, and the choice among them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from coevo_jax.config.options import ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.flash_attention import flash_attention
from coevo_jax.models.flash_attention_gpu import WIDEST, flash_attention_gpu, prepare
from coevo_jax.models.tree_attention import tree_attention
from coevo_jax.sharding import over_heads

# (q [B, T, H, h], k [B, T, K, h], v [B, T, K, h], visible_until [B, T], window or None) -> [B, T, H, h]
Attention = Callable[..., jax.Array]


@dataclass(frozen=True)
class PreparedAttention:
    """An attention that takes what `prepare(visible_until, head width, type)` makes, once for all layers."""

    attend: Attention
    prepare: Callable[..., Any]

    def __call__(self, *arguments: Any) -> jax.Array:
        return self.attend(*arguments)


ATTENTIONS: dict[str, Attention] = {"dense": dense_attention, "blocks": tree_attention}
FLASH: dict[str, Attention] = {  # by platform; on CPUs interpreted
    "cpu": flash_attention,
    "tpu": flash_attention,
    "gpu": flash_attention_gpu,
}
OLDEST = 8.0  # compute capability that the kernels for GPUs are compiled for: A100's


def choose_attention(config: ModelConfig, mesh: Mesh) -> Attention:
    """The attention that `config.attention` names; "auto" takes that of the mesh's platform.

    On several devices each works on its own rows and heads, without communication.

    Raises:
      ConfigError: the kernels of "flash" do not run on this device, or not for such a model.
    """
    name, reason = named_attention(config, mesh.devices.flat[0])
    if config.attention == "flash" and reason:
        raise ConfigError(f"model.attention: found flash, but {reason}: expected auto, dense or blocks")
    attention = FLASH[mesh.devices.flat[0].platform] if name == "flash" else ATTENTIONS[name]
    local = attention if mesh.size == 1 else over_heads(mesh, attention)
    return PreparedAttention(local, prepare) if attention is flash_attention_gpu else local


def named_attention(config: ModelConfig, device: Any) -> tuple[str, str]:
    """The name of the attention that a model has on a device, and why its kernels cannot be had, if so."""
    reason = without_kernels(config, device)
    if config.attention != "auto":
        return config.attention, reason
    if device.platform == "cpu":
        return "blocks", reason
    return ("dense", reason) if reason else ("flash", "")


def without_kernels(config: ModelConfig, device: Any) -> str:
    """Why the kernels of "flash" do not run on a device for a model; "" if they do."""
    if device.platform == "tpu":
        windows = "sliding" in config.layer_types
        return "its kernels for TPUs have no sliding windows (model.layer_types)" if windows else ""
    if device.platform == "gpu":
        capability = getattr(device, "compute_capability", None)
        if capability is None or "." not in str(capability):
            return f"its kernels are for TPUs and NVIDIA GPUs, found {getattr(device, 'device_kind', 'gpu')}"
        if float(capability) < OLDEST:
            return f"its kernels need a GPU of compute capability {OLDEST} or more, found {capability}"
        if config.head_dim > WIDEST:
            return f"its kernels for GPUs have heads of at most {WIDEST}, found {config.head_dim}"
        return ""
    return "" if device.platform == "cpu" else f"it has no kernels for {device.platform}"
