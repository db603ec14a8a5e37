"""Packed masks against sets of rows."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.row_mask import MaskCache, RowMask

ROWS = st.lists(st.integers(0, 39))


def array(rows: list[int]) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64)


@given(st.integers(40, 70), st.lists(st.tuples(st.sampled_from(("without", "including", "only")), ROWS), max_size=6))
def test_is_a_set_of_rows(size: int, changes: list[tuple[str, list[int]]]) -> None:
    mask, wanted = RowMask.of_all(size), set(range(size))
    for what, rows in changes:
        if what == "without":
            mask, wanted = mask.without(array(rows)), wanted - set(rows)
        elif what == "including":
            mask, wanted = mask.including(array(rows)), wanted | set(rows)
        else:
            mask, wanted = mask.both(RowMask.only(size, array(rows))), wanted & set(rows)
        assert mask.rows().tolist() == sorted(wanted)
        assert mask.count == len(wanted)
        assert mask.has(np.arange(size)).tolist() == [row in wanted for row in range(size)]
        assert mask.bits is None or np.unpackbits(mask.bits)[:].sum() == len(wanted)


@given(st.integers(0, 20), st.lists(st.integers(0, 19)), st.lists(st.integers(0, 20), min_size=1, max_size=5))
def test_grows_by_shown_rows(size: int, hidden: list[int], growth: list[int]) -> None:
    hidden = [row for row in hidden if row < size]
    mask, wanted = RowMask.of_all(size).without(array(hidden)), set(range(size)) - set(hidden)
    for more in growth:
        mask, wanted, size = mask.grown(more), wanted | set(range(size, size + more)), size + more
        assert (mask.size, mask.count, mask.rows().tolist()) == (size, len(wanted), sorted(wanted))
        assert mask.bits is None or int(np.bitwise_count(mask.bits).sum()) == len(wanted)


def test_a_change_leaves_the_mask_it_came_of() -> None:
    first = RowMask.of_all(20).without(array([3]))
    first.without(array([4]))
    first.including(array([3]))
    assert first.rows().tolist() == [row for row in range(20) if row != 3]


@pytest.mark.parametrize("rows", [[], [5, 5, 5], [5]])
def test_hiding_what_is_hidden_changes_nothing(rows: list[int]) -> None:
    mask = RowMask.of_all(8).without(array([5]))
    assert mask.without(array(rows)) is mask


def test_only_masks_of_read_only_arrays_are_kept() -> None:
    cache, made = MaskCache(most=2), []

    def make(rows: NDArray[np.int64]) -> RowMask:
        made.append(rows.tolist())
        return RowMask.only(10, rows)

    written, kept = array([1]), array([2])
    kept.setflags(write=False)
    for _ in range(2):
        assert cache.of(written, make).rows().tolist() == [1]
        assert cache.of(kept, make).rows().tolist() == [2]
    assert made == [[1], [2], [1]]
    others = [array([row]) for row in (3, 4)]
    for other in others:
        other.setflags(write=False)
        cache.of(other, make)
    assert cache.of(kept, make).rows().tolist() == [2]
    assert made[-1] == [2]


def test_an_array_in_the_place_of_one_that_is_gone_gets_its_own_mask() -> None:
    cache = MaskCache()
    for row in range(200):
        rows = array([row % 10])
        rows.setflags(write=False)
        assert cache.of(rows, lambda rows: RowMask.only(10, rows)).rows().tolist() == [row % 10]
        del rows
        gc.collect(0)
