"""Bags in slots and sequences beside them: taking, stacking and padding against plain lists."""

from __future__ import annotations

import numpy as np
import pytest

from index.bags import Bags, Sequences, offsets_of, stack_bags

SLOTS: list[list[dict[int, float]]] = [[{3: 1.0, 9: 2.0}, {}], [{}, {}], [{1: 1.0}, {1: 1.5, 7: 1.0, 8: 1.0}]]
HISTORY = [[5, 5, 2], [], [9]]


def lengths(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def bags_of(slots: list[list[dict[int, float]]], history: list[list[int]], unseen: list[int] | None = None) -> Bags:
    flat = [bag for text in slots for bag in text]
    return Bags(
        offsets_of(lengths([len(bag) for bag in flat])),
        np.array([row for bag in flat for row in bag], dtype=np.int32),
        np.array([weight for bag in flat for weight in bag.values()], dtype=np.float32),
        2,
        (
            Sequences(
                offsets_of(lengths([len(one) for one in history])),
                np.array([row for one in history for row in one], dtype=np.int32),
            ),
        ),
        None if unseen is None else np.array(unseen, dtype=np.int32),
    )


def lists_of(bags: Bags) -> tuple[list[list[dict[int, float]]], list[list[int]]]:
    parts = zip(np.split(bags.rows, bags.offsets[1:-1]), np.split(bags.weights, bags.offsets[1:-1]), strict=True)
    flat = [dict(zip(rows.tolist(), weights.tolist(), strict=True)) for rows, weights in parts]
    (history,) = bags.sequences
    return (
        [flat[start : start + 2] for start in range(0, len(flat), 2)],
        [one.tolist() for one in np.split(history.rows, history.offsets[1:-1])],
    )


@pytest.mark.parametrize("texts", [[], [1], [2, 0], [0, 0, 1, 2]])
def test_taking_keeps_every_slot_and_sequence(texts: list[int]) -> None:
    taken = bags_of(SLOTS, HISTORY, [4, 0, 6]).take(lengths(texts))
    assert len(taken) == len(texts) and taken.slots == 2
    if texts:
        assert lists_of(taken) == ([SLOTS[text] for text in texts], [HISTORY[text] for text in texts])
    assert taken.unseen is not None and taken.unseen.tolist() == [[4, 0, 6][text] for text in texts]


def test_stacking_is_one_after_another() -> None:
    bags = bags_of(SLOTS, HISTORY)
    other = bags.take(lengths([2, 1]))
    both = stack_bags(bags, other, bags.take(lengths([])))
    assert lists_of(both) == ([*SLOTS, SLOTS[2], SLOTS[1]], [*HISTORY, HISTORY[2], HISTORY[1]])
    assert both.unseen is None
    counted = stack_bags(bags_of(SLOTS, HISTORY, [1, 2, 3]), bags_of(SLOTS, HISTORY, [4, 5, 6]))
    assert counted.unseen is not None and counted.unseen.tolist() == [1, 2, 3, 4, 5, 6]


def test_padded_weights_sum_up_each_slot() -> None:
    bags = bags_of(SLOTS, HISTORY)
    assert bags.lengths.tolist() == [3, 0, 4]
    rows, weights = bags.padded(5)
    assert rows.shape == (3, 5) and weights.shape == (3, 2, 5) and weights.dtype == np.float32
    values = np.random.default_rng(0).normal(size=10)
    wanted = [[sum(weight * values[row] for row, weight in bag.items()) for bag in text] for text in SLOTS]
    assert np.einsum("nsl,nl->ns", weights, values[rows]) == pytest.approx(np.array(wanted))
    found, mask = bags.sequences[0].padded(3)
    assert found.tolist() == [[5, 5, 2], [0, 0, 0], [9, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
