"""The rules: what they split, what they replicate, and that they say which of them divides no dimension."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from coevo_jax.config.options import MeshConfig, ModelConfig
from coevo_jax.config.strict import ConfigError
from coevo_jax.models.attention import dense_attention
from coevo_jax.models.transformer import Transformer, init_params
from coevo_jax.sharding import (
    batch_sharding,
    hosts_of_a_copy,
    make_mesh,
    over_heads,
    param_shardings,
    put,
    replicated,
)


def shardings(model: ModelConfig, vocab: int = 96, **axes):
    boxed = jax.eval_shape(lambda: init_params(Transformer(model, vocab), jax.random.key(0)))
    return param_shardings(make_mesh(MeshConfig(**axes), model.num_kv_heads), boxed)


def test_matrices_are_split_over_both_axes_and_norms_over_none():
    found = shardings(ModelConfig(), fsdp=2, tensor=4)
    assert found["embedding"].spec == PartitionSpec("tensor", "fsdp")
    assert found["layers"]["gate"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert found["layers"]["key"].spec == PartitionSpec(None, "fsdp", "tensor")
    assert found["final_norm"]["scale"].spec == PartitionSpec()


def test_a_key_value_head_is_on_several_devices_where_there_are_more_of_these():
    found = shardings(ModelConfig(num_kv_heads=2), fsdp=2, tensor=4)
    assert (
        found["layers"]["key"].spec == found["layers"]["value"].spec == PartitionSpec(None, "fsdp", "tensor")
    )
    assert found["layers"]["query"].spec == PartitionSpec(None, "fsdp", ("tensor", "group"))
    assert found["embedding"].spec == PartitionSpec(("tensor", "group"), "fsdp")
    # Devices 0 and 1 share the first key/value head; each has one of the two query heads that read it.
    for name, first in (("key", [0, 0, 1, 1]), ("query", [0, 1, 2, 3])):
        held = found["layers"][name].devices_indices_map((1, 2, max(first) + 1))
        starts = {device.id: place[2].start or 0 for device, place in held.items()}
        assert [starts[device] for device in range(4)] == first


@pytest.mark.parametrize(
    ("axes", "model", "message"),
    [
        (
            {"tensor": 4},
            {"intermediate_size": 90},
            "mesh.tensor 4 does not divide the 90 of layers/.*: the rule mlp",
        ),
        (
            {"fsdp": 8},
            {"hidden_size": 36},
            "mesh.fsdp 8 does not divide the 36 of .*: the rule embed -> fsdp",
        ),
        (
            {"tensor": 4},
            {"num_heads": 12, "num_kv_heads": 6},
            "does not divide the 6 of layers/.*the rule kv_heads",
        ),
    ],
)
def test_a_rule_that_does_not_divide_a_dimension_is_named_with_it(axes, model, message):
    with pytest.raises(ConfigError, match=message):
        shardings(ModelConfig(**model), **axes)


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_attention_over_devices_is_that_of_one(kv_heads):
    rng = np.random.default_rng(kv_heads)
    q = rng.normal(size=(2, 32, 8, 8)).astype(np.float32)
    k, v = rng.normal(size=(2, 2, 32, kv_heads, 8)).astype(np.float32)
    until = np.full((2, 32), 32, np.int32)

    def run(attention):
        def total(*arrays):
            return (attention(*arrays, until) * q).sum()

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    split = over_heads(make_mesh(MeshConfig(fsdp=2, tensor=4), kv_heads), dense_attention)
    (found, gradients), (expected, expected_gradients) = run(split), run(dense_attention)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_copy_too_big_for_a_host_is_held_by_whole_neighbouring_hosts():
    devices = [SimpleNamespace(process_index=i // 2, id=i) for i in range(8)]
    pod: Any = SimpleNamespace(devices=np.array(devices).reshape(2, 2, 2))
    assert [hosts_of_a_copy(pod, tensor) for tensor in (1, 2, 4, 8)] == [1, 1, 2, 4]
    for tensor in (3, 6, 16):
        with pytest.raises(
            ConfigError, match=r"divisor of the 2 devices .* or a multiple of it that divides the 8 of all"
        ):
            hosts_of_a_copy(pod, tensor)


def test_arrays_are_put_as_a_prefix_of_shardings_says():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2))
    tree = {"rows": {"a": np.arange(8.0), "b": np.ones((4, 3))}, "all": np.float32(3)}
    placed = put(tree, {"rows": batch_sharding(mesh), "all": replicated(mesh)})
    assert {shard.data.shape for shard in placed["rows"]["b"].addressable_shards} == {(1, 3)}
    assert placed["all"].sharding == replicated(mesh)
    np.testing.assert_array_equal(placed["rows"]["a"], tree["rows"]["a"])
