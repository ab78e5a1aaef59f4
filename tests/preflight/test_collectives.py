"""Collectives read from compiled programs: their kinds, their bytes, and that loops repeat them."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from coevo_jax.config.options import MeshConfig
from coevo_jax.preflight.collectives import collectives
from coevo_jax.sharding import make_mesh

BY_HAND = """\
HloModule jit_step

%all-reduce-scatter.1 (p: f32[8,16]) -> f32[2,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %all-reduce.9 = f32[8,16]{1,0} all-reduce(%p), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  ROOT %cut = f32[2,16]{1,0} dynamic-slice(%all-reduce.9, %i, %z), dynamic_slice_sizes={2,16}
}

%condition (c: (s32[], f32[4])) -> pred[] {
  %c = (s32[], f32[4]) parameter(0)
  %bound = s32[]{:T(128)} constant(7)
  %at = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%at, %bound), direction=LT
}

%body (b: (s32[], f32[4])) -> (s32[], f32[4]) {
  %b = (s32[], f32[4]) parameter(0)
  %g = (bf16[10]{0}, bf16[80]{0}) all-gather-start(%x), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %t = (s32[], f32[4]) tuple(%i, %f)
}

%unknown_condition (c: (s32[], s32[])) -> pred[] {
  %c = (s32[], s32[]) parameter(0)
  ROOT %less = pred[] compare(%a, %b), direction=LT
}

%unknown_body (b: (s32[], s32[])) -> (s32[], s32[]) {
  %send = (f32[3]{0}, f32[3]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  ROOT %t = (s32[], s32[]) tuple(%i, %f)
}

%unrolled_condition (c: (f32[8], u32[])) -> pred[] {
  %c = (f32[8], u32[]) parameter(0)
  %bound = u32[]{:T(128)} constant(8)
  %at = u32[] get-tuple-element(%c), index=1
  ROOT %less = pred[] compare(%at, %bound), direction=LT
}

%unrolled_body (b: (f32[8], u32[])) -> (f32[8], u32[]) {
  %b = (f32[8], u32[]) parameter(0)
  %two = u32[]{:T(128)} constant(2)
  %at = u32[] get-tuple-element(%b), index=1
  %swap = f32[8]{0} all-to-all(%x), replica_groups=[1,8]<=[8]
  %next = u32[]{:T(128)} add(%at, %two), metadata={op_name="next"}
  ROOT %t = (f32[8]{0}, u32[]{:T(128)}) tuple(%swap, %next)
}

ENTRY %main (x: f32[8,16]) -> f32[2,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %w = (s32[], f32[4]) while(%init), condition=%condition, body=%body
  %u = (s32[], s32[]) while(%other), condition=%unknown_condition, body=%unknown_body
  %v = (f32[8], u32[]) while(%third), condition=%unrolled_condition, body=%unrolled_body
  ROOT %r = f32[2,16]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_program_written_by_hand():
    found = {one.kind: (one.count, one.wire_bytes) for one in collectives(BY_HAND, 8)}
    assert found == {
        "all-gather": (7, 7 * 160 * 7 / 8),  # 80 bfloat16 from 8 chips, seven times
        "reduce-scatter": (1, 512 * 3 / 4),  # over the axis of four chips
        "collective-permute": (1, 12.0),  # in a loop of unknown length
        "all-to-all": (4, 4 * 32 * 7 / 8),  # its counter goes to 8 by twos
    }


ASYNCHRONOUS = """\
HloModule jit_step

%body (b: (s32[], f32[4])) -> (s32[], f32[4]) {
  %b = (s32[], f32[4]) parameter(0)
  %g = (bf16[10]{0}, bf16[80]{0}) all-gather-start(%x), channel_id=1, replica_groups=[1,8]<=[8]
  %h = (bf16[10]{0}, bf16[80]{0}) all-gather-start(%x), channel_id=1, replica_groups=[1,8]<=[8]
  %r = ((f32[80]{0}, f32[16]{0}), (f32[10]{0}, f32[2]{0})) reduce-scatter-start(%x, %y), channel_id=1, \
replica_groups=[1,8]<=[8]
  ROOT %t = (s32[], f32[4]) tuple(%i, %f)
}

%condition (c: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%a, %b), direction=LT
}

ENTRY %main (x: f32[8,16]) -> f32[2,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %w = (s32[], f32[4]) while(%x), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %g = (bf16[10]{0}, bf16[80]{0}) all-gather-start(%x), channel_id=1, replica_groups=[1,8]<=[8]
  %a = ((f32[8]{0}, f32[8]{0}), (f32[8]{0}, f32[8]{0})) all-to-all-start(%x, %y), channel_id=2, \
replica_groups=[1,8]<=[8]
  %send = (f32[64,8]{1,0:T(8,128)}, u32[], token[]) send(%x, %t), channel_id=3, is_host_transfer=true
  %near = (f32[64,8]{1,0}, u32[], token[]) send(%x, %t), channel_id=4
  ROOT %r = f32[2,16]{1,0} fusion(%x), kind=kCustom, calls=%other
}
"""


def test_asynchronous_forms_are_counted_by_their_results_and_a_channel_once_a_loop():
    found = {one.kind: (one.count, one.wire_bytes) for one in collectives(ASYNCHRONOUS, 8)}
    assert found == {
        "all-gather": (6, 6 * 160 * 7 / 8),  # written twice in the loop, and once outside of it
        "reduce-scatter": (5, 5 * 12 * 4 * 7),  # a chip's parts, 12 float32
        "all-to-all": (1, 64 * 7 / 8),
        "between slices": (1, 64 * 8 * 4.0),  # what hosts send, not a send among chips
    }


@pytest.mark.parametrize("layers", [1, 5])
def test_a_scanned_product_is_reduced_once_for_every_layer(layers):
    mesh = make_mesh(MeshConfig(tensor=8))

    def place(shape, *axes):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))

    def step(x, weights):
        def layer(x, weight):
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(layer, x, weights)[0]

    split = place((4, 64), None, "tensor"), place((layers, 64, 64), None, "tensor", None)
    out = NamedSharding(mesh, PartitionSpec(None, None))
    text = jax.jit(step, out_shardings=out).lower(*split).compile().as_text()
    (found,) = (one for one in collectives(text, 8) if one.kind == "all-reduce")
    assert found.count == layers
    assert found.wire_bytes == layers * 2 * (4 * 64 * 4) * 7 / 8
