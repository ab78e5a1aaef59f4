"""Bytes that programs read and write: a program written by hand, and products of a compiled one."""

import jax
import jax.numpy as jnp
import pytest

from coevo_jax.preflight.moved import movements

BY_HAND = """\
HloModule jit_decode

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%put (cache: bf16[8,64], new: bf16[8,1], at: s32[]) -> bf16[8,64] {
  %cache = bf16[8,64]{1,0} parameter(0)
  %new = bf16[8,1]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update = bf16[8,64]{1,0} dynamic-update-slice(%cache, %new, %zero, %at)
}

%cut (table: f32[100,4], rows: s32[8,1]) -> bf16[8,4] {
  %table = f32[100,4]{1,0} parameter(0)
  %rows = s32[8,1]{1,0} parameter(1)
  %found = f32[8,4]{1,0} gather(%table, %rows), offset_dims={1}, slice_sizes={1,4}
  ROOT %small = bf16[8,4]{1,0} convert(%found)
}

%made (x: f32[8]) -> f32[8,64] {
  %x = f32[8]{0} parameter(0)
  %row = f32[8,1]{1,0} bitcast(%x)
  %nothing = f32[] constant(0)
  %whole = f32[8,64]{1,0} broadcast(%nothing), dimensions={}
  ROOT %first = f32[8,64]{1,0} dynamic-update-slice(%whole, %row, %nothing, %nothing)
}

%draw (x: (f32[8,100])) -> (s32[8]) {
  %x = (f32[8,100]{1,0}) parameter(0)
  %logits = f32[8,100]{1,0} get-tuple-element(%x), index=0
  %noisy = f32[8,100]{1,0} exponential(%logits)
  %filtered = f32[8,100]{1,0} conditional(%on, %noisy, %noisy), branch_computations={%all, %some}
  ROOT %t = (s32[8]{0}) tuple(%y)
}

%greedy (x: (f32[8,100])) -> (s32[8]) {
  %x = (f32[8,100]{1,0}) parameter(0)
  ROOT %t = (s32[8]{0}) tuple(%y)
}

%all (x: f32[8,100]) -> f32[8,100] {
  ROOT %x = f32[8,100]{1,0} parameter(0)
}

%some (x: f32[8,100]) -> f32[8,100] {
  %x = f32[8,100]{1,0} parameter(0)
  ROOT %y = f32[8,100]{1,0} sqrt(%x)
}

%inner_body (b: (s32[], f32[16])) -> (s32[], f32[16]) {
  %b = (s32[], f32[16]{0}) parameter(0)
  %f = f32[16]{0} get-tuple-element(%b), index=1
  %g = f32[16]{0} negate(%f)
  ROOT %t = (s32[], f32[16]{0}) tuple(%i, %g)
}

%inner_condition (c: (s32[], f32[16])) -> pred[] {
  %c = (s32[], f32[16]{0}) parameter(0)
  ROOT %less = pred[] parameter(1)
}

%body (state: (bf16[8,64], f32[100,4], bf16[8,1], s32[])) -> (bf16[8,64], f32[100,4], bf16[8,1], s32[]) {
  %state = (bf16[8,64]{1,0}, f32[100,4]{1,0}, bf16[8,1]{1,0}, s32[]) parameter(0)
  %cache = bf16[8,64]{1,0} get-tuple-element(%state), index=0
  %table = f32[100,4]{1,0} get-tuple-element(%state), index=1
  %new = bf16[8,1]{1,0} get-tuple-element(%state), index=2
  %at = s32[] get-tuple-element(%state), index=3
  %rows = s32[8,1]{1,0} iota(), iota_dimension=0
  %embedded = bf16[8,4]{1,0} fusion(%table, %rows), kind=kLoop, calls=%cut
  %longer = bf16[8,64]{1,0} fusion(%cache, %new, %at), kind=kLoop, calls=%put, \
metadata={op_name="decode/write"}
  %begun = f32[8,64]{1,0} fusion(%x), kind=kLoop, calls=%made
  %drawn = (s32[8]{0}) conditional(%on, %logits, %logits), branch_computations={%greedy, %draw}
  %product = (bf16[8,8]{1,0}, s8[4096]{0}) custom-call(%embedded, %embedded), \
custom_call_target="__cublas$gemm"
  %put_there = f32[8]{0} scatter(%sums, %index, %more), to_apply=%add
  %sums = f32[8]{0} parameter(1)
  %more = f32[2]{0} parameter(2)
  %loop = (s32[], f32[16]{0}) while(%w), condition=%inner_condition, body=%inner_body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %t = (bf16[8,64]{1,0}, f32[100,4]{1,0}, bf16[8,1]{1,0}, s32[]) tuple(%longer, %table, %new, %at)
}

%condition (c: (s32[])) -> pred[] {
  %c = (s32[]) parameter(0)
  ROOT %less = pred[] fusion(), kind=kLoop, calls=%unknown
}

%unknown () -> pred[] {
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (cache: bf16[8,64]) -> bf16[8,64] {
  %cache = bf16[8,64]{1,0} parameter(0)
  %copied = bf16[8,64]{1,0} copy(%cache)
  ROOT %w = (bf16[8,64]{1,0}) while(%copied), condition=%condition, body=%body
}
"""


def test_a_program_written_by_hand():
    found = movements(BY_HAND)
    assert {one.name: one.bytes for one in found.once} == {"copied": 2 * 8 * 64 * 2}
    assert {one.name: one.bytes for one in found.each} == {
        "rows": 8 * 4,
        "embedded": 8 * 4 * 4 + 8 * 4 + 8 * 4 * 2,  # the rows that are asked for
        "longer": 2 * 8 * 2 + 4,  # what is put into the cache, not the cache
        "begun": 8 * 64 * 4,  # what is updated is made here
        "noisy": 2 * 8 * 100 * 4,  # of branches the larger one; a filter inside of it is off
        "product": 8 * 4 * 2 + 8 * 8 * 2,  # one operand twice; its workspace is not counted
        "put_there": 2 * 4 + 2 * 4 + 2 * 4,  # what is added to is read, too
        "g": 3 * 2 * 16 * 4,
        "less": 1,
    }
    assert found.of_a_pass == sum(one.bytes for one in found.each)
    assert [one.origin for one in found.each if one.name == "longer"] == ["decode/write"]


@pytest.mark.parametrize("length", [1, 4])
def test_a_compiled_product_moves_its_operands_and_its_result(length):
    def repeated(x, weights):
        return jax.lax.scan(lambda x, weight: (x @ weight, None), x, weights)[0]

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 256), (length, 256, 256)))
    found = movements(jax.jit(repeated).lower(*shapes).compile().as_text())
    assert found.of_a_pass == 0
    moved = sum(one.bytes for one in found.once)
    needed = length * 4 * (256 * 256 + 2 * 64 * 256)
    assert needed <= moved < 4 * needed  # a CPU's program cuts each matrix out of the stack first
