"""Which attention a model has on a device."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from coevo_jax.config.options import ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.attention_kinds import choose_attention, named_attention
from coevo_jax.models.flash_attention import flash_attention
from coevo_jax.models.flash_attention_gpu import flash_attention_gpu
from coevo_jax.models.tree_attention import tree_attention


@dataclass
class Device:
    platform: str
    compute_capability: str | None = None
    device_kind: str = "some device"


class OneDevice:
    """The mesh of one device that this machine does not have."""

    size = 1

    def __init__(self, *device):
        self.devices = np.array([Device(*device)])


SLIDING = {"layer_types": ("sliding", "full"), "sliding_window": 8}


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        (("cpu",), {}, tree_attention),
        (("cpu",), {"attention": "flash"}, flash_attention),
        (("tpu",), {}, flash_attention),
        (("tpu",), SLIDING, dense_attention),
        (("gpu", "9.0"), {}, flash_attention_gpu),
        (("gpu", "8.0"), SLIDING, flash_attention_gpu),
        (("gpu", "12.0"), {}, flash_attention_gpu),
        (("gpu", "7.5"), {}, dense_attention),
        (("gpu", "9.0"), {"head_dim": 320}, dense_attention),
        (("gpu", None), {}, dense_attention),  # of another maker
        (("gpu", "gfx942"), {}, dense_attention),
        (("gpu", "9.0"), {"attention": "blocks"}, tree_attention),
        (("metal",), {}, dense_attention),
    ],
)
def test_auto_takes_the_kernels_where_they_run(device, options, expected):
    found = choose_attention(ModelConfig(**options), OneDevice(*device))
    assert getattr(found, "attend", found) is expected


@pytest.mark.parametrize(
    ("device", "options", "words"),
    [
        (("tpu",), SLIDING, "its kernels for TPUs have no sliding windows"),
        (("gpu", "7.5"), {}, "its kernels need a GPU of compute capability 8.0 or more, found 7.5"),
        (("gpu", "gfx942", "MI300X"), {}, "its kernels are for TPUs and NVIDIA GPUs, found MI300X"),
        (("gpu", "9.0"), {"head_dim": 320}, "its kernels for GPUs have heads of at most 256, found 320"),
        (("metal",), {}, "it has no kernels for metal"),
    ],
)
def test_flash_is_refused_with_the_reason_that_auto_gives(device, options, words):
    config = ModelConfig(**options)
    name, reason = named_attention(config, Device(*device))
    assert name == "dense" and words in reason
    message = re.escape(f"model.attention: found flash, but {reason}: expected auto, dense or blocks")
    with pytest.raises(ConfigError, match=message):
        choose_attention(config.model_copy(update={"attention": "flash"}), OneDevice(*device))
