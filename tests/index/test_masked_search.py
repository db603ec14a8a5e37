"""Built indexes of every kind under masks, against exact search among the rows that are shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index.masked_search import BuiltIndex, merged
from index.row_mask import RowMask

DIM, ROWS, CENTRES = 32, 6_000, 40


@functools.cache
def world() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Vectors around centres far apart, the centre of each, and queries."""
    random = np.random.default_rng(0)
    centre = random.integers(0, CENTRES, ROWS + 20)
    centres = random.standard_normal((CENTRES, DIM))
    vectors = centres[centre] + 0.5 * random.standard_normal((ROWS + 20, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors[:ROWS], centre[:ROWS], vectors[ROWS:]


@functools.cache
def built(factory: str) -> faiss.Index:
    vectors, _, _ = world()
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    core = index
    while isinstance(core, faiss.IndexRefine | faiss.IndexPreTransform):
        core = faiss.downcast_index(core.base_index if isinstance(core, faiss.IndexRefine) else core.index)
    if isinstance(core, faiss.IndexIVF):
        core.cp.min_points_per_centroid = 1
        core.nprobe = 12
    if isinstance(index, faiss.IndexRefine):
        index.k_factor = 4
    index.train(vectors)
    index.add(vectors)
    if hasattr(core, "hnsw"):
        core.hnsw.efSearch = 64
    return index


def recall(built: BuiltIndex, k: int, shown: NDArray[np.bool_]) -> float:
    vectors, _, queries = world()
    scores, rows = built.search(queries, k, RowMask.of(shown))
    assert rows.shape == (len(queries), min(k, int(shown.sum())))
    assert shown[rows].all()
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(found)) == len(found) for found in rows.tolist())
    exact = np.where(shown, queries.astype(np.float64) @ vectors.T.astype(np.float64), -np.inf)
    best = np.argsort(-exact, axis=1)[:, : rows.shape[1]]
    return float(np.mean([np.isin(true, found).mean() for true, found in zip(best, rows, strict=True)]))


MASKS: dict[str, Callable[[NDArray[np.int64]], NDArray[np.bool_]]] = {
    "all": lambda centre: np.ones(ROWS, dtype=np.bool_),
    "most": lambda centre: np.arange(ROWS) % 10 > 0,
    "half": lambda centre: np.arange(ROWS) % 2 == 0,
    "half of the centres": lambda centre: centre % 2 == 0,
    "two centres": lambda centre: centre < 2,
    "few": lambda centre: np.arange(ROWS) % 1_000 == 7,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("Flat", 1.0),
        ("SQ8", 0.96),
        ("HNSW32,Flat", 0.99),
        ("HNSW32,SQ8", 0.96),
        ("IVF64,Flat", 0.97),
        ("IVF64_HNSW16,SQ8", 0.95),
        ("IVF32,RaBitQ,RFlat", 0.9),
        ("IVF32,PQ16x4fs,Refine(SQ8)", 0.9),
        ("RR32,IVF32,RaBitQ,RFlat", 0.85),
        ("RR32,HNSW16,Flat", 0.97),
    ],
)
def test_finds_the_best_rows_shown(factory: str, least: float, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if rows were dear to fetch: the searches under a mask are what is looked at.
    monkeypatch.setattr("index.masked_search._ROWS_PER_STEP", 0.1)
    monkeypatch.setattr("index.masked_search._FEW", 8)
    monkeypatch.setattr("index.masked_search._BLOCK", 100)
    vectors, centre, _ = world()
    for k in (10, 50):
        for stored in (None, 3 * vectors):
            assert recall(BuiltIndex.of(built(factory), stored), k, MASKS[mask](centre)) >= least


@pytest.mark.parametrize("factory", ["HNSW32,SQ8", "IVF64,SQ8"])
def test_few_rows_of_rounded_codes_are_compared_by_their_vectors(factory: str) -> None:
    vectors, centre, queries = world()
    shown = centre == 3
    index = BuiltIndex.of(built(factory), 5 * vectors)
    assert recall(index, 20, shown) == 1.0
    scores, rows = index.search(queries, 3, RowMask.of(shown))
    assert scores == pytest.approx(np.einsum("nd,nkd->nk", queries, vectors[rows]), abs=1e-6)


@pytest.mark.parametrize("factory", ["HNSW32,SQ8", "IVF64,SQ8", "IVF32,RaBitQ,RFlat", "RR32,HNSW16,Flat"])
@pytest.mark.parametrize("shown", [ROWS, ROWS - 500])
def test_as_many_as_there_are_come_when_more_are_asked_for(factory: str, shown: int) -> None:
    _, _, queries = world()
    mask = RowMask.of(np.arange(ROWS) < shown)
    _, rows = BuiltIndex.of(built(factory)).search(queries[:2], ROWS + 1, mask)
    assert [sorted(found) for found in rows.tolist()] == [list(range(shown))] * 2


@pytest.mark.parametrize("factory", ["Flat", "HNSW32,SQ8", "IVF64,SQ8", "IVF32,RaBitQ,RFlat"])
def test_nothing_is_found_of_nothing(factory: str) -> None:
    _, _, queries = world()
    index = BuiltIndex.of(built(factory))
    assert index.search(queries, 5, RowMask.only(ROWS, np.zeros(0, dtype=np.int64)))[1].shape == (20, 0)
    assert index.search(queries, 0, RowMask.of_all(ROWS))[1].shape == (20, 0)
    assert index.search(queries[:0], 5, RowMask.of_all(ROWS))[1].shape == (0, 5)
    assert index.best_of(queries, 5, np.zeros(0, dtype=np.int64))[1].shape == (20, 0)


def test_a_query_among_hidden_rows_finds_the_best_of_the_others() -> None:
    vectors, centre, _ = world()
    index = BuiltIndex.of(built("HNSW32,Flat"))
    shown = centre != 5
    queries = np.ascontiguousarray(vectors[~shown][:10])
    _, rows = index.search(queries, 10, RowMask.of(shown))
    best = np.argsort(-np.where(shown, queries @ vectors.T, -np.inf), axis=1)[:, :10]
    assert np.mean([np.isin(true, found).mean() for true, found in zip(best, rows, strict=True)]) == 1.0


def test_a_memory_mapped_index_is_searched(tmp_path: Path) -> None:
    vectors, centre, _ = world()
    for factory in ("Flat", "HNSW32,SQ8", "IVF64,SQ8"):
        faiss.write_index(built(factory), str(tmp_path / "index"))
        opened = faiss.read_index(str(tmp_path / "index"), faiss.IO_FLAG_MMAP_IFC)
        assert recall(BuiltIndex.of(opened, vectors), 10, centre % 2 == 0) >= 0.95


class Card:
    """An index on a card, which knows no selectors."""

    def __init__(self, host: faiss.Index) -> None:
        self.host, self.d, self.ntotal = host, host.d, host.ntotal
        self.calls = 0

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        params: faiss.SearchParameters | None = None,
        shown: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.calls += 1
        vectors, _, _ = world()
        scores = queries @ vectors.T
        if shown is not None:
            scores[:, ~np.unpackbits(shown, count=ROWS, bitorder="little").view(np.bool_)] = -np.inf
        rows = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, rows, 1), rows


def test_a_copy_on_a_card_is_given_the_mask() -> None:
    card = Card(built("IVF64,SQ8"))
    assert recall(BuiltIndex.of(card), 10, np.arange(ROWS) % 3 > 0) == 1.0
    assert recall(BuiltIndex.of(card), 10, np.ones(ROWS, dtype=np.bool_)) == 1.0
    assert card.calls == 2


def test_results_are_merged_by_score_and_row() -> None:
    one = np.array([[0.5, 0.5, 0.1]], dtype=np.float32), np.array([[7, 2, 9]])
    other = np.array([[0.7, 0.5, -np.inf]], dtype=np.float32), np.array([[3, 1, -1]])
    scores, rows = merged([one, other], 4)
    assert rows.tolist() == [[3, 1, 2, 7]]
    assert scores.tolist() == [[pytest.approx(0.7), 0.5, 0.5, 0.5]]
    assert merged([one, other], 1)[1].tolist() == [[3]]


def test_rows_that_are_kept_as_they_are_keep_their_length() -> None:
    vectors, _, queries = world()
    as_is = np.arange(5, 400, 7)
    served = vectors.copy()
    served[as_is] *= 1.5
    index = faiss.index_factory(DIM, "SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(served)
    index.add(served)
    kept = 3 * vectors
    kept[as_is] = served[as_is]
    few = np.arange(0, 500, 3)
    scores, rows = BuiltIndex.of(index, kept, as_is).best_of(queries, 10, few)
    exact = queries.astype(np.float64) @ served[few].T.astype(np.float64)
    best = np.argsort(-exact, axis=1)[:, :10]
    np.testing.assert_array_equal(rows, few[best])
    np.testing.assert_allclose(scores, np.take_along_axis(exact, best, 1), atol=1e-5)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.4])
def test_candidates_of_coarse_codes_are_scored_again_by_the_vectors(share: float) -> None:
    vectors, _, queries = world()
    index = faiss.index_factory(DIM, "SQ4", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    shown = np.random.default_rng(3).random(ROWS) < share
    plain, again = BuiltIndex.of(index, 2 * vectors), BuiltIndex.of(index, 2 * vectors, rescore=8.0)
    assert recall(again, 10, shown) >= 0.99 > recall(plain, 10, shown)
    scores, rows = again.search(queries, 10, RowMask.of(shown))
    exact = np.einsum("nd,nkd->nk", queries.astype(np.float64), vectors.astype(np.float64)[rows])
    np.testing.assert_allclose(scores, exact, atol=1e-5)
    assert again.search(queries, ROWS, RowMask.of(shown))[1].shape == (len(queries), shown.sum())
