"""Metrics against slow definitions and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from training.metrics import Judged, inverse_propensity

LABELS = 8


def judged(ranked: list[list[int]], truth: list[set[int]]) -> Judged:
    dense = np.zeros((len(truth), LABELS), dtype=np.float32)
    for row, positives in enumerate(truth):
        dense[row, list(positives)] = 1
    return Judged.of(np.array(ranked, dtype=np.int64), csr_matrix(dense))


def test_values_worked_out_by_hand() -> None:
    result = judged([[0, 1, 2, 3, 4], [5, 6, 7, -1, -1]], [{1, 3, 7}, {5}])
    assert result.precision(1) == pytest.approx((0 + 1) / 2)
    assert result.precision(5) == pytest.approx((2 / 5 + 1 / 5) / 2)
    assert result.recall(5) == pytest.approx((2 / 3 + 1) / 2)
    # Row 1: hits at places 2 and 4 of at most 3; row 2: its only positive at place 1.
    gain = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / math.log2(4))
    assert result.ndcg(5) == pytest.approx((gain + 1) / 2)
    weights = np.arange(1.0, LABELS + 1)
    # Hits 1 and 3 weigh 2 + 4, hit 5 weighs 6; the best rankings would win 8 + 4 + 2 and 6.
    assert result.propensity_precision(5, weights) == pytest.approx((2 + 4 + 6) / (14 + 6))
    assert result.propensity_precision(1, weights) == pytest.approx(6 / (8 + 6))


def test_propensity_is_jain_et_al() -> None:
    counts = np.array([0, 1, 100])
    c = (math.log(1000) - 1) * (1.5 + 1) ** 0.55
    wanted = [1 + c * math.exp(-0.55 * math.log(n + 1.5)) for n in (0, 1, 100)]
    assert inverse_propensity(counts, 1000).tolist() == pytest.approx(wanted)


@given(st.data())
def test_equals_the_slow_definitions(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    ranking = st.permutations(range(LABELS))
    ranked = [list(data.draw(ranking))[:6] for _ in range(count)]
    truth = [data.draw(st.sets(st.integers(0, LABELS - 1), min_size=1)) for _ in range(count)]
    weights = np.array(data.draw(st.lists(st.floats(1, 9), min_size=LABELS, max_size=LABELS)))
    result = judged(ranked, truth)
    for k in (1, 3, 5):
        tops = [row[:k] for row in ranked]
        hits = [[label in positives for label in top] for top, positives in zip(tops, truth, strict=True)]
        assert result.precision(k) == pytest.approx(np.mean([sum(row) / k for row in hits]))
        assert result.recall(k) == pytest.approx(
            np.mean([sum(row) / len(positives) for row, positives in zip(hits, truth, strict=True)])
        )
        best = [sorted((weights[label] for label in positives), reverse=True)[:k] for positives in truth]
        won = [[weights[label] for label in top if label in ones] for top, ones in zip(tops, truth, strict=True)]
        assert result.propensity_precision(k, weights) == pytest.approx(sum(map(sum, won)) / sum(map(sum, best)))
        gains = []
        for row, positives in zip(hits, truth, strict=True):
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(positives))))
            gains.append(sum(hit / math.log2(place + 2) for place, hit in enumerate(row)) / ideal)
        assert result.ndcg(k) == pytest.approx(np.mean(gains))


def test_recall_of_some_labels_counts_only_rows_that_have_them() -> None:
    result = judged([[0, 1, 2], [3, 4, 5], [6, 7, 0]], [{0, 5}, {5}, {6}])
    wanted = np.zeros(LABELS, dtype=bool)
    wanted[5] = True
    recall, rows = result.restricted_recall(3, wanted)
    assert (recall, rows) == (0.5, 2)
    assert result.restricted_recall(3, np.zeros(LABELS, dtype=bool)) == (0.0, 0)


def test_missing_places_are_no_hits() -> None:
    result = judged([[-1, -1]], [{LABELS - 1}])
    assert result.precision(2) == 0.0
    assert result.recall(100) == 0.0
    assert result.ndcg(5) == 0.0
