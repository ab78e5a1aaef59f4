from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.data.packing.prefix_tree import common_prefix, encode_row, token_codes
from tests.data.packed import trajectory

tokens_and_mask = st.lists(st.tuples(st.integers(10, 11), st.sampled_from("01")), min_size=1, max_size=8)


@given(st.lists(tokens_and_mask, min_size=1, max_size=6))
def test_a_row_is_the_smallest_tree_of_its_trajectories(all_pieces):
    all_pieces.sort(key=lambda pieces: [token * 2 + int(mask) for token, mask in pieces])
    members = [trajectory([t for t, _ in own], "".join(m for _, m in own)) for own in all_pieces]
    codes = [token_codes(one) for one in members]
    row = encode_row(members, [0, *(common_prefix(one, other) for one, other in pairwise(codes))])
    # a place for each distinct beginning, and no more
    beginnings = {tuple(pieces[: end + 1]) for pieces in all_pieces for end in range(len(pieces))}
    assert len(row.tokens) == len(beginnings)
    paths = [[k for k in range(q + 1) if q < row.visible_until[k]] for q in range(len(row.tokens))]
    assert sorted(tuple(row.tokens[path].tolist()) for path in paths) == sorted(
        tuple(token for token, _ in beginning) for beginning in beginnings
    )
    assert [len(path) - 1 for path in paths] == row.positions.tolist()
    # every agent token but a first one is scored once, at its parent
    scored = sum(mask == "1" and len(one) > 1 for one in beginnings for _, mask in [one[-1]])
    assert len(row.source) == scored
    for own, pieces in zip(row.entries, all_pieces, strict=True):
        places = [t for t, (_, mask) in enumerate(pieces) if mask == "1" and t > 0]
        assert [row.tokens[paths[row.source[j]]].tolist() for j in own] == [
            [token for token, _ in pieces[:t]] for t in places
        ]
        assert row.target[own].tolist() == [pieces[t][0] for t in places]


def test_the_same_token_is_another_where_only_one_of_them_is_the_agents():
    ours, theirs = trajectory([10, 11, 12], "011"), trajectory([10, 11, 12], "001")
    assert common_prefix(token_codes(ours), token_codes(theirs)) == 1


def test_codes_sort_as_tokens_do():
    rng = np.random.default_rng(0)
    many = [trajectory(rng.integers(0, 2**31 - 1, 3), "010") for _ in range(50)]
    by_bytes = sorted(many, key=lambda one: token_codes(one).tobytes())
    assert [one.tokens.tolist() for one in by_bytes] == sorted(one.tokens.tolist() for one in many)
