"""Centroids: running sums against sums made anew, and the sums without one query."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix

from index.label_vector import centroid_part
from training.centroids import Centroids

Dense = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def relevance(queries: int, labels: int, seed: int) -> tuple[csr_matrix, Dense]:
    dense = np.random.default_rng(seed).random((queries, labels)) < 0.2
    dense[0] = False
    dense[:, labels - 1] = False
    return csr_matrix(dense.astype(np.float32)), dense


def test_sums_equal_those_made_anew_after_any_updates() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        truth, dense = relevance(30, 11, seed)
        centroids, latest = Centroids(truth, 6), np.zeros((30, 6))
        assert not centroids.sums.any()
        for _ in range(40):
            queries = np.sort(random.choice(30, random.integers(1, 12), replace=False))
            vectors = random.standard_normal((len(queries), 6)).astype(np.float32)
            centroids.update(queries, torch.from_numpy(vectors).requires_grad_())
            latest[queries] = vectors
        assert not centroids.sums.requires_grad
        assert np.abs(centroids.vectors.numpy() - latest).max() < 1e-5
        assert np.abs(centroids.sums.numpy() - dense.T.astype(np.float64) @ latest).max() < 1e-4
        assert not centroids.sums[10].any()


def test_without_leaves_one_query_out() -> None:
    truth, dense = relevance(30, 11, 1)
    centroids, random = Centroids(truth, 6), np.random.default_rng(1)
    vectors = random.standard_normal((30, 6)).astype(np.float32)
    centroids.update(np.arange(30), torch.from_numpy(vectors))
    queries, labels = np.nonzero(dense)
    found = centroids.without(torch.from_numpy(labels), torch.from_numpy(queries)).numpy()
    for query, label, left in zip(queries, labels, found, strict=True):
        others = dense[:, label].copy()
        others[query] = False
        assert np.abs(left - vectors[others].astype(np.float64).sum(axis=0)).max() < 1e-5


def test_a_label_of_one_query_has_no_centroid_without_it() -> None:
    centroids = Centroids(csr_matrix(np.array([[1, 0], [0, 1]], dtype=np.float32)), 3)
    centroids.update(np.array([0]), torch.tensor([[0.6, 0.8, 0.0]]))
    own = centroids.without(torch.tensor([0]), torch.tensor([0]))
    part = centroid_part(own, torch.tensor([[0.0]]))
    assert part.tolist() == [[0.0, 0.0, 0.0]]
    assert centroids.sums.tolist() == [[np.float32(0.6), np.float32(0.8), 0.0], [0.0, 0.0, 0.0]]


def test_an_update_of_nothing_changes_nothing() -> None:
    centroids = Centroids(relevance(5, 3, 0)[0], 2)
    centroids.update(np.zeros(0, dtype=np.int64), torch.zeros(0, 2))
    assert not centroids.sums.any()
