"""Batches: every query once, positives right, and the same again from any step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.batches import Batches


def relevance(queries: int = 50, labels: int = 30, seen: int = 20) -> csr_matrix:
    random = np.random.default_rng(0)
    dense = random.random((queries, labels)) < 0.15
    dense[:, seen:] = False
    dense[3] = False
    return csr_matrix(dense.astype(np.float32))


def test_an_epoch_has_every_query_with_labels_once_and_true_positives() -> None:
    truth = relevance()
    batches = Batches(truth, 8, 10, 0.2, 1)
    seen = []
    for batch in batches.epoch(0):
        seen += batch.queries.tolist()
        assert (np.diff(batch.pool) > 0).all()
        assert batch.positive.tolist() == (truth[batch.queries].toarray()[:, batch.pool] > 0).tolist()
        assert batch.positive.sum() == truth[batch.queries].nnz
        assert len(batch.pool) >= 10
    assert sorted(seen) == np.flatnonzero(truth.toarray().any(axis=1)).tolist()
    assert batches.per_epoch == len(list(batches.epoch(0)))


def test_resumed_batches_are_the_same() -> None:
    batches = Batches(relevance(), 8, 10, 0.2, 1)
    for later, again in zip(list(batches.epoch(2))[3:], batches.epoch(2, first=3), strict=True):
        assert later.queries.tolist() == again.queries.tolist()
        assert later.pool.tolist() == again.pool.tolist()
        assert later.random.random(4).tolist() == again.random.random(4).tolist()


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(next(iter(Batches(relevance(), 8, 10, 0.2, seed).epoch(epoch))).queries)
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_unseen_labels_are_drawn_as_often_as_their_share_says() -> None:
    truth = relevance(seen=15)
    for share in (0.0, 0.2, 1.0):
        batches = Batches(truth, 50, 3, share, 5)
        drawn = np.zeros(30)
        for epoch in range(800):
            batch = next(iter(batches.epoch(epoch)))
            drawn[batch.pool] += 1
        # No unseen label is a positive, so all of its draws are by chance: 3 draws from 15 labels of weight 1 and 15
        # of weight `share`. Drawing without replacement favours the lighter ones a little.
        assert drawn[15:].mean() == pytest.approx(800 * 3 * share / (15 + 15 * share), rel=0.12)


def test_a_pool_as_large_as_the_label_set_is_all_of_it() -> None:
    batch = next(iter(Batches(relevance(), 8, 1000, 0.2, 1).epoch(0)))
    assert batch.pool.tolist() == list(range(30))
