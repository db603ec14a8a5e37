"""Vectors that are looked up: what the trainer gets of them, and that nothing can change them."""

from __future__ import annotations

import numpy as np
import torch

from index.features import FeatureSpec
from training.frozen_tower import FrozenTower, LabelRows

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def tower() -> FrozenTower:
    return FrozenTower(VECTORS, FeatureSpec(), torch.device("cpu"))


def test_rows_are_looked_up_in_any_order_and_number() -> None:
    items = LabelRows(np.arange(4))
    for rows in ([], [2], [3, 0], [1, 1, 1]):
        part = items.take(np.array(rows, dtype=np.int64))
        assert len(part) == len(rows) == len(part.lengths)
        for found in (tower().encode(part), tower().batch(part, np.random.default_rng(0))):
            assert np.array_equal(found.numpy(), VECTORS[rows])
            assert not found.requires_grad


def test_taking_twice_is_taking_of_what_was_taken() -> None:
    items = LabelRows(np.arange(4)).take(np.array([3, 1, 2])).take(np.array([2, 0]))
    assert tower().encode(items).tolist() == [VECTORS[2].tolist(), VECTORS[3].tolist()]


def test_nothing_is_trained_or_kept() -> None:
    one = tower()
    assert one.dim == 3
    assert one.gradients() == []
    one.update(1.0)
    one.load({})
    assert one.tensors() == {}
    assert np.array_equal(one.encode(LabelRows(np.arange(4))).numpy(), VECTORS)
