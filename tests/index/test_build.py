"""Building an index: exact search by NumPy is the oracle."""

from __future__ import annotations

import numpy as np

from index.build import build_index, exact_top, overlap


def clustered(count: int, dim: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((40, dim))
    vectors = centres[random.integers(40, size=count)] + 0.5 * random.standard_normal((count, dim))
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).astype(np.float32)
    return unit


def test_exact_search_is_the_largest_products() -> None:
    vectors, queries = clustered(300, 16, 0), clustered(20, 16, 1)
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    assert exact_top(vectors, queries, 7).tolist() == np.argsort(-products, axis=1)[:, :7].tolist()


def test_few_vectors_get_an_exact_index() -> None:
    vectors, queries = clustered(500, 16, 0), clustered(30, 16, 1)
    index, report = build_index(vectors, queries)
    assert (report.factory, report.recall, report.vectors) == ("Flat", 1.0, 500)
    assert index.search(queries, 10)[1].tolist() == exact_top(vectors, queries, 10).tolist()


def test_many_vectors_get_a_graph_with_the_recall_that_it_reports() -> None:
    vectors, queries = clustered(6000, 32, 2), clustered(200, 32, 3)
    index, report = build_index(vectors, queries, target=0.99, exact_below=1000)
    assert report.factory.startswith("HNSW")
    assert report.recall >= 0.99
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    truth = np.argsort(-products, axis=1)[:, :10]
    index.hnsw.efSearch = report.effort
    found = index.search(queries, 10)[1]
    shares = [len(set(mine) & set(true)) / 10 for mine, true in zip(found.tolist(), truth.tolist(), strict=True)]
    assert abs(np.mean(shares) - report.recall) < 1e-6


def test_recall_counts_shares() -> None:
    found, truth = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[3, 2, 9], [7, 8, 9]])
    assert overlap(found, truth) == np.mean([2 / 3, 0])
    assert overlap(np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3), dtype=np.int64)) == 1.0
