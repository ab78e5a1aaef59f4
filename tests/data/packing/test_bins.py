from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.data.packing.bins import (
    Bundle,
    Layout,
    Part,
    Shape,
    _least,
    _least_rows,
    assemble,
    best_subset,
    fits,
)

parts = st.builds(Part, size=st.integers(0, 12), views=st.integers(1, 3))


@given(st.lists(parts, max_size=7), st.integers(0, 30), st.integers(0, 6))
def test_the_best_subset_is_the_best_of_all(items, room, views):
    chosen = best_subset(items, room, views)
    assert chosen == sorted(set(chosen))
    assert sum(items[i].views for i in chosen) <= views
    sums = [
        sum(part.size for part in some)
        for count in range(len(items) + 1)
        for some in combinations(items, count)
        if sum(part.size for part in some) <= room and sum(part.views for part in some) <= views
    ]
    assert sum(items[i].size for i in chosen) == max(sums)


def test_the_best_subset_by_hand():
    items = [Part(size=size, views=1) for size in (5, 4, 3, 3)]
    assert best_subset(items, 7, 2) == [1, 2]
    assert best_subset(items, 100, 3) == [0, 1, 2]


bundles = st.lists(
    st.builds(
        Bundle,
        layouts=st.lists(
            st.builds(Layout, parts=st.lists(parts, min_size=1, max_size=3).map(tuple)),
            min_size=1,
            max_size=2,
        ).map(tuple),
        pairs=st.integers(0, 2),
    ),
    max_size=12,
)


@given(bundles, st.integers(1, 3))
def test_every_bundle_lies_in_one_microbatch_that_holds_it(all_bundles, rows):
    shape = Shape(rows=rows, tokens=14, views=4, pairs=3)
    fitting = [bundle for bundle in all_bundles if fits(bundle, shape)]
    fillings = assemble(fitting, shape, attempts=2)
    assert sorted(placed.bundle for filling in fillings for placed in filling) == list(range(len(fitting)))
    assert fillings == assemble(fitting, shape, attempts=2)
    for filling in fillings:
        assert filling
        tokens, views = [0] * rows, [0] * rows
        for placed in filling:
            for part, row in zip(
                fitting[placed.bundle].layouts[placed.layout].parts, placed.rows, strict=True
            ):
                tokens[row] += part.size
                views[row] += part.views
        assert max(tokens) <= 14
        assert max(views) <= 4
        assert sum(fitting[placed.bundle].pairs for placed in filling) <= 3


def bundle(*sizes, pairs=1, whole=None):
    layouts = [Layout(parts=tuple(Part(size=size, views=1) for size in sizes))]
    if whole is not None:
        layouts.insert(0, Layout(parts=(Part(size=whole, views=len(sizes)),)))
    return Bundle(layouts=tuple(layouts), pairs=pairs)


def test_what_fits_only_in_parts_is_cut():
    shape = Shape(rows=2, tokens=10, views=4, pairs=8)
    filling = assemble([bundle(7), bundle(6), bundle(3, 4, whole=6)], shape)
    assert len(filling) == 1
    cut = next(placed for placed in filling[0] if placed.bundle == 2)
    assert (cut.layout, len(set(cut.rows))) == (1, 2)


@pytest.mark.parametrize(
    ("one", "holds"),
    [
        (bundle(10, 10), True),
        (bundle(11), False),
        (bundle(6, 6, 6), False),
        (bundle(1, pairs=9), False),
        (bundle(5, 6, whole=11), True),
        (bundle(*[1] * 9), False),
    ],
)
def test_what_a_microbatch_holds(one, holds):
    assert fits(one, Shape(rows=2, tokens=10, views=4, pairs=8)) is holds


@given(bundles, st.integers(1, 3))
def test_no_packing_takes_fewer_microbatches_than_the_bound_says(all_bundles, rows):
    shape = Shape(rows=rows, tokens=14, views=4, pairs=3)
    fitting = [bundle for bundle in all_bundles if fits(bundle, shape)]
    assert _least(fitting, shape) <= len(assemble(fitting, shape))


@pytest.mark.parametrize(
    ("sizes", "least"), [([6, 6, 6], 3), ([6, 4, 6, 4], 2), ([7, 4, 7, 4], 3), ([3, 3, 3, 3], 2), ([], 0)]
)
def test_the_bound_of_rows_by_hand(sizes, least):
    assert _least_rows(sizes, 10) == least
