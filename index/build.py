"""Vectors to a FAISS index that is known to find what exact search finds."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

EXACT_BELOW = 20_000
_RECALL_AT = 10
# Eight bits a number are read four times as fast as floats; where they blur the order too much, floats are kept.
_FACTORIES = ("HNSW32,SQ8", "HNSW32,Flat")
# Built once and searched many times: a graph built with more effort needs a third less of it in every search.
BUILD_EFFORT = 500
_EFFORTS = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What was built: FAISS factory string, search effort (efSearch; 0 when exact), and the recall that it measured.

    recall: share of the exact top 10 that the index finds, mean over `queries` held-out queries.
    """

    factory: str
    effort: int
    recall: float
    queries: int
    vectors: int


def build_index(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    *,
    target: float = 0.99,
    exact_below: int = EXACT_BELOW,
    build_effort: int = BUILD_EFFORT,
) -> tuple[faiss.Index, IndexReport]:
    """An inner-product index over unit `vectors` (n, dim), exact when n < exact_below, else HNSW.

    HNSW (Malkov & Yashunin 2018), with vectors quantised to 8 bits where that suffices, gets the smallest search
    effort whose recall@10 on `queries` (m, dim) reaches `target`; where none does, it gets the largest, and the
    report says what was reached. build_effort: efConstruction of the graph; more makes a better one more slowly. Rows
    keep their numbers.
    """
    count, dim = vectors.shape
    if count < exact_below:
        exact = faiss.IndexFlatIP(dim)
        exact.add(vectors)
        return exact, IndexReport("Flat", 0, 1.0, len(queries), count)
    truth = exact_top(vectors, queries, _RECALL_AT)
    for factory in _FACTORIES:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = build_effort
        index.train(vectors)
        index.add(vectors)
        effort, recall = _tune(index, queries, truth, target)
        if recall >= target:
            break
    return index, IndexReport(factory, effort, recall, len(queries), count)


def _tune(
    index: faiss.Index, queries: NDArray[np.float32], truth: NDArray[np.int64], target: float
) -> tuple[int, float]:
    """Set the smallest search effort that reaches the target (else the largest); returns it and its recall."""
    effort, recall = _EFFORTS[0], 0.0
    for effort in _EFFORTS:
        index.hnsw.efSearch = effort
        recall = overlap(index.search(queries, _RECALL_AT)[1], truth)
        if recall >= target:
            break
    return effort, recall


def exact_top(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows (m, k) int64 of the k largest inner products, by exact search."""
    _, rows = faiss.knn(queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)
    return np.asarray(rows, dtype=np.int64)


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of each row of `truth` (m, k) that stands in the same row of `found`; 1.0 for no rows."""
    if not truth.size:
        return 1.0
    return float(np.mean([np.isin(true, got).mean() for got, true in zip(found, truth, strict=True)]))
