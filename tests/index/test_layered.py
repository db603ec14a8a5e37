"""The layered index against brute force, through any series of changes."""

from __future__ import annotations

import functools
from dataclasses import replace

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.errors import InputError
from index.layered import LayeredIndex
from index.sealing import apply, seal

DIM = 8


def unit_rows(count: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def flat(vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.IndexFlatIP(DIM)
    index.add(vectors)
    return index


def brute_force(live: dict[int, NDArray[np.float32]], query: NDArray[np.float32], k: int) -> list[int]:
    scored = sorted(((-float(np.dot(query.astype(np.float64), vector)), row) for row, vector in live.items()))
    return [row for _, row in scored[:k]]


KINDS = ("add", "hide", "restore", "seal", "apply")
CHANGES = st.lists(st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 20), max_size=4)), max_size=25)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 12), CHANGES, st.sets(st.integers(0, 25)))
def test_finds_what_brute_force_finds_after_any_changes(
    size: int, changes: list[tuple[str, list[int]]], some: set[int]
) -> None:
    base = unit_rows(size, 0)
    index, live = LayeredIndex.over(flat(base)), {row: base[row] for row in range(size)}
    sealed = index.sealed()
    for number, (what, named) in enumerate(changes):
        rows = np.array(named, dtype=np.int64)
        if what == "add":
            vectors = 3 * unit_rows(len(rows), 100 + number)
            index = index.add(rows, vectors)
            live |= dict(zip(named, vectors, strict=True))
        elif what == "hide":
            index = index.hide(named)
            live = {row: vector for row, vector in live.items() if row not in named}
        elif what == "restore":
            inside = [row for row in named if row < size]
            index, live = index.restore(np.array(inside, dtype=np.int64)), live | {row: base[row] for row in inside}
        elif what == "seal":
            sealed = index.sealed()
        else:
            index = index.with_sealed(sealed)
        assert len(index) == len(live)
    check(index, live, None)
    check(index, live, sorted(some))


def check(index: LayeredIndex, live: dict[int, NDArray[np.float32]], allowed: list[int] | None) -> None:
    """Against brute force over what is live and allowed."""
    queries, wanted_of = unit_rows(3, 2), live
    rows = None
    if allowed is not None:
        rows, wanted_of = np.array(allowed, dtype=np.int64), {row: live[row] for row in allowed if row in live}
    found = index.search(queries, 5, rows)
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == np.float32
    for place, query in enumerate(queries):
        wanted = brute_force(wanted_of, query, 5)
        assert found.rows[place].tolist() == wanted + [-1] * (5 - len(wanted))
        assert np.isneginf(found.scores[place][len(wanted) :]).all()
        exact = [float(np.dot(query, live[row])) for row in wanted]
        assert found.scores[place][: len(wanted)] == pytest.approx(exact, abs=1e-5)


def test_an_old_view_is_not_changed_by_later_ones() -> None:
    base, query = unit_rows(10, 3), unit_rows(1, 4)
    first = LayeredIndex.over(flat(base)).add(np.array([10], dtype=np.int64), query)
    before = first.search(query, 3)
    first.hide([10, int(before.rows[0, 1])])
    first.add(np.array([11], dtype=np.int64), query)
    after = first.search(query, 3)
    assert after.rows.tolist() == before.rows.tolist()


@functools.cache
def graph_of_3000(factory: str) -> tuple[NDArray[np.float32], faiss.Index]:
    vectors = unit_rows(3000, 5)
    graph = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = 64
    graph.train(vectors)
    graph.add(vectors)
    return vectors, graph


@pytest.mark.parametrize("every", [2, 3, 150, 3000])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("factory", "least"), [("HNSW16,Flat", 0.99), ("HNSW16,SQ8", 0.95)])
def test_a_graph_index_finds_its_shown_rows_however_many_are_hidden(
    every: int, keep: bool, factory: str, least: float
) -> None:
    vectors, graph = graph_of_3000(factory)
    shown = {row for row in range(3000) if (row % every == 0) == keep}
    index = LayeredIndex.over(graph).hide([row for row in range(3000) if row not in shown])
    shares = []
    for query in unit_rows(10, 6):
        found = index.search(query[None], 20).rows[0].tolist()
        assert set(found) <= shown | {-1}
        wanted = brute_force({row: vectors[row] for row in shown}, query, 20)
        shares.append(len(set(found) & set(wanted)) / len(wanted))
    assert np.mean(shares) >= least


def test_more_is_asked_for_than_there_is() -> None:
    found = LayeredIndex.over(flat(unit_rows(2, 7))).search(unit_rows(4, 8), 6)
    assert found.rows.shape == (4, 6)
    assert (found.rows[:, 2:] == -1).all()
    assert np.isneginf(found.scores[:, 2:]).all()


def test_no_queries_find_nothing() -> None:
    found = LayeredIndex.over(flat(unit_rows(2, 7))).search(np.zeros((0, DIM), dtype=np.float32), 2)
    assert found.rows.shape == (0, 2)


def test_equal_vectors_are_all_found() -> None:
    same = np.repeat(unit_rows(1, 9), 4, axis=0)
    index = LayeredIndex.over(flat(same)).add(np.array([4, 5], dtype=np.int64), same[:2])
    assert set(index.search(same[:1], 6).rows[0].tolist()) == {0, 1, 2, 3, 4, 5}


def test_what_is_hidden_or_replaced_while_a_part_is_sealed_stays_so() -> None:
    base, added, later = unit_rows(3, 10), unit_rows(6, 11), unit_rows(3, 12)
    rows = np.arange(3, 9)
    index = LayeredIndex.over(flat(base)).add(rows, added)
    sealed = index.sealed()
    index = index.hide([3]).add(np.array([4, 9, 0]), later)
    live = {
        1: base[1],
        2: base[2],
        **dict(zip(range(5, 9), added[2:], strict=True)),
        4: later[0],
        9: later[1],
        0: later[2],
    }
    check(index, live, None)
    index = index.with_sealed(sealed)
    check(index, live, None)
    assert index.delta.tail.shown.count == 3
    again = index.add(np.array([5]), base[:1]).with_sealed(index.sealed())
    check(again, live | {5: base[0]}, None)
    assert len(again.delta.parts) == 1
    assert sorted(again.delta_rows.tolist()) == [0, 4, 5, 6, 7, 8, 9]


def test_a_part_of_which_most_was_hidden_is_built_anew_of_the_rest() -> None:
    added = unit_rows(40, 13)
    index = LayeredIndex.over(flat(unit_rows(0, 0))).add(np.arange(40), added)
    index = index.with_sealed(index.sealed()).hide(range(30))
    sealed = index.sealed()
    index = index.hide([39]).with_sealed(sealed)
    assert [part.shown.size for part in index.delta.parts] == [10]
    check(index, {row: added[row] for row in range(30, 39)}, None)


def test_another_generation_begins_above_a_size() -> None:
    added = unit_rows(30, 14)
    delta = LayeredIndex.over(flat(unit_rows(0, 0))).add(np.arange(10), added[:10]).delta
    for start in (10, 20):
        delta = apply(seal(delta, most_rows=20), delta).add(np.arange(start, start + 10), added[start : start + 10])
    delta = apply(seal(delta, most_rows=20), delta)
    assert [part.shown.size for part in delta.parts] == [20, 10]
    index = replace(LayeredIndex.over(flat(unit_rows(0, 0))), delta=delta)
    check(index, dict(enumerate(added)), None)
    check(index, dict(enumerate(added)), [3, 15, 16, 29, 31])


def test_a_sealing_of_another_index_or_an_older_one_changes_nothing() -> None:
    index = LayeredIndex.over(flat(unit_rows(2, 7))).add(np.array([5]), unit_rows(1, 8))
    older = index.sealed()
    newer = index.with_sealed(index.sealed())
    assert newer.with_sealed(older) is newer
    other = LayeredIndex.over(flat(unit_rows(2, 7))).add(np.array([5]), unit_rows(1, 9))
    assert other.with_sealed(older) is other


@pytest.mark.parametrize(
    ("exact", "count", "wanted"),
    [(True, 19_999, False), (True, 20_000, True), (False, 4_095, False), (False, 4_096, True)],
)
def test_sealing_is_wanted(exact: bool, count: int, wanted: bool) -> None:
    base = flat(unit_rows(2, 7)) if exact else graph_of_3000("HNSW16,Flat")[1]
    index = LayeredIndex.over(base).add(np.arange(count) + 5_000, np.ones((count, DIM), dtype=np.float32))
    assert index.wants_sealing() == wanted


def test_many_changes_of_one_row_leave_one() -> None:
    vectors = unit_rows(700, 15)
    index = LayeredIndex.over(flat(unit_rows(2, 7)))
    for vector in vectors:
        index = index.add(np.array([1]), vector[None])
    assert index.delta_rows.tolist() == [1]
    assert index.delta_vectors[0] == pytest.approx(vectors[-1])
    assert index.delta.tail.shown.size < 600


def test_row_numbers_may_be_huge_and_arrays_strided() -> None:
    rows, vectors = np.array([2**62, 7, 5, 9, 2**40])[::2], unit_rows(6, 16)[::2]
    index = LayeredIndex.over(flat(unit_rows(2, 7))).add(rows, vectors)
    for made in (index, index.with_sealed(index.sealed())):
        assert made.search(unit_rows(6, 16)[::-2][:, ::1], 1, np.array([5, 2**40, 2**62])).rows.shape == (3, 1)
        assert made.search(vectors, 1).rows.ravel().tolist() == rows.tolist()
        assert made.search(vectors.astype(np.float64), 1, np.sort(rows)).rows.ravel().tolist() == rows.tolist()
        assert len(made.hide([2**62, 2**63 - 1, 4])) == len(made) - 1


def test_vectors_may_have_one_dimension() -> None:
    base = faiss.IndexFlatIP(1)
    base.add(np.array([[1.0], [-2.0]], dtype=np.float32))
    index = LayeredIndex.over(base).add(np.array([2]), np.array([[3.0]], dtype=np.float32))
    for made in (index, index.with_sealed(index.sealed())):
        assert made.search(np.ones((1, 1), dtype=np.float32), 3).rows.tolist() == [[2, 0, 1]]


def test_all_hidden_and_nothing_allowed() -> None:
    index = LayeredIndex.over(flat(unit_rows(4, 7))).add(np.array([4]), unit_rows(1, 8))
    assert (index.hide(range(5)).search(unit_rows(2, 1), 3).rows == -1).all()
    assert (index.search(unit_rows(2, 1), 3, np.zeros(0, dtype=np.int64)).rows == -1).all()
    assert (index.search(unit_rows(2, 1), 3, np.array([77])).rows == -1).all()
    assert index.search(unit_rows(2, 1), 0).rows.shape == (2, 0)


def test_wrong_arrays_are_named() -> None:
    index = LayeredIndex.over(flat(unit_rows(4, 7)))
    with pytest.raises(InputError, match=r"vectors: are of shape \(1, 8\); 2 rows of 8 numbers"):
        index.add(np.array([1, 2]), unit_rows(1, 0))
    with pytest.raises(InputError, match="rows: -1 is below 0"):
        index.add(np.array([-1]), unit_rows(1, 0))
    with pytest.raises(InputError, match="rows: 4 is not in the base, whose rows are 0 to 3"):
        index.restore(np.array([4]))
    with pytest.raises(InputError, match=r"vectors: are of shape \(3, 8\); the index has \(4, 8\)"):
        LayeredIndex.over(flat(unit_rows(4, 7)), unit_rows(3, 7))


@pytest.mark.parametrize("every", [2, 3, 150, 3000])
@pytest.mark.parametrize("factory", ["HNSW16,Flat", "HNSW16,SQ8"])
def test_of_a_graph_and_what_came_after_it_the_allowed_are_found(every: int, factory: str) -> None:
    vectors, graph = graph_of_3000(factory)
    later = unit_rows(1500, 20)
    index = LayeredIndex.over(graph, 2 * vectors).add(np.arange(3000, 4000), later[:1000])
    index = index.with_sealed(index.sealed()).add(np.arange(4000, 4500), later[1000:]).hide(range(0, 4500, 7))
    live = {row: vector for row, vector in enumerate(np.concatenate([vectors, later])) if row % 7}
    allowed = np.arange(1, 4600, every)
    allowed.setflags(write=False)
    shown = {row: vector for row, vector in live.items() if row % every == 1 % every}
    for query in unit_rows(5, 21):
        for _ in range(2):
            found = index.search(query[None], 10, allowed).rows[0].tolist()
            wanted = brute_force(shown, query, 10)
            assert len([row for row in found if row >= 0]) == len(wanted)
            assert len(set(found) & set(wanted)) >= 0.9 * len(wanted)
