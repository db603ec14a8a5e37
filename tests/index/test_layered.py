"""The layered index against brute force, through any series of changes."""

from __future__ import annotations

import functools

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.layered import LayeredIndex

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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from(("add", "hide")), st.integers(0, 20)), max_size=25))
def test_finds_what_brute_force_finds_after_any_changes(size: int, changes: list[tuple[str, int]]) -> None:
    base = unit_rows(size, 0)
    index, live = LayeredIndex.over(flat(base)), {row: base[row] for row in range(size)}
    fresh = iter(unit_rows(len(changes), 1))
    for what, row in changes:
        if what == "add":
            vector = next(fresh)
            index, live[row] = index.add(np.array([row], dtype=np.int64), vector[None]), vector
        else:
            index = index.hide([row])
            live.pop(row, None)
    assert len(index) == len(live)
    queries = unit_rows(3, 2)
    found = index.search(queries, 5)
    for place, query in enumerate(queries):
        wanted = brute_force(live, query, 5)
        assert [row for row in found.rows[place].tolist() if row >= 0] == wanted
        assert np.isneginf(found.scores[place][len(wanted) :]).all()
        exact = [float(np.dot(query, live[row])) for row in wanted]
        assert found.scores[place][: len(wanted)] == pytest.approx(exact, abs=1e-6)


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
