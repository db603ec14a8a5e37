"""Batches: every query once, in random order or cluster by cluster, and the same again from any step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.batches import Batches


def relevance(queries: int = 50, labels: int = 30) -> csr_matrix:
    dense = np.random.default_rng(0).random((queries, labels)) < 0.15
    dense[3] = False
    dense[queries - 1] = False
    return csr_matrix(dense.astype(np.float32))


def test_an_epoch_has_every_query_with_labels_once() -> None:
    truth = relevance()
    wanted = np.flatnonzero(truth.toarray().any(axis=1)).tolist()
    batches = Batches(truth, 8, 1)
    assert batches.rows.tolist() == wanted
    for epoch in range(3):
        found = list(batches.epoch(epoch, batches.order(epoch)))
        assert len(found) == batches.per_epoch == -(-len(wanted) // 8)
        assert [(batch.epoch, batch.step) for batch in found] == [(epoch, step) for step in range(len(found))]
        assert all((np.diff(batch.queries) > 0).all() for batch in found)
        assert sorted(row for batch in found for row in batch.queries.tolist()) == wanted


def test_clusters_stay_together_in_a_random_order_of_their_own() -> None:
    batches = Batches(csr_matrix(np.ones((12, 2), dtype=np.float32)), 4, 1)
    clusters = [np.array([0, 5, 7, 9]), np.array([1, 2, 3, 4]), np.array([6, 8, 10, 11])]
    orders = [batches.order(epoch, clusters).tolist() for epoch in range(20)]
    for epoch, order in enumerate(orders):
        assert order == batches.order(epoch, clusters).tolist()
        found = [batch.queries.tolist() for batch in batches.epoch(epoch, np.array(order))]
        assert sorted(found) == sorted(cluster.tolist() for cluster in clusters)
    assert len({tuple(order) for order in orders}) == 6


@pytest.mark.parametrize("first", [0, 1, 3, 6])
def test_resumed_batches_are_the_same(first: int) -> None:
    batches = Batches(relevance(), 8, 1)
    order = batches.order(2)
    for later, again in zip(list(batches.epoch(2, order))[first:], batches.epoch(2, order, first=first), strict=True):
        assert (later.step, later.queries.tolist()) == (again.step, again.queries.tolist())
        assert later.random.random(4).tolist() == again.random.random(4).tolist()


def test_epochs_steps_and_seeds_differ() -> None:
    orders = {tuple(Batches(relevance(), 8, seed).order(epoch).tolist()) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
    batches = Batches(relevance(), 8, 1)
    chances = {batch.random.random() for epoch in (0, 1) for batch in batches.epoch(epoch, batches.order(epoch))}
    assert len(chances) == 2 * batches.per_epoch


def test_one_query_one_batch_and_a_batch_larger_than_all() -> None:
    one = Batches(csr_matrix(np.array([[0, 1.0]], dtype=np.float32)), 8, 0)
    assert [batch.queries.tolist() for batch in one.epoch(0, one.order(0))] == [[0]]
    large = Batches(relevance(), 1000, 0)
    assert large.per_epoch == 1
    assert next(iter(large.epoch(0, large.order(0)))).queries.tolist() == large.rows.tolist()
    assert list(large.epoch(0, large.order(0), first=1)) == []
