"""Metrics against slow definitions and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from training.metrics import Judged, Reliability, RowParts, inverse_propensity, without

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


# Labels 0 to 4 weigh 1, 2, 4, 8, 3; discounts are 1, 1/log2(3) = 0.630930, 1/log2(4) = 0.5. Row by row:
#   ranked 2 1 0, truth {0, 2}:       hits at places 1 and 3, worth 4 and 1
#   ranked 0 1 3, truth {1}:          hit at place 2, worth 2
#   ranked 3 0 2, truth {0, 1, 3, 4}: hits at places 1 and 2, worth 8 and 1
#   ranked 4 2 1, truth {}:           counts nowhere
_RANKED = [[2, 1, 0], [0, 1, 3], [3, 0, 2], [4, 2, 1]]
_TRUTH: list[set[int]] = [{0, 2}, {1}, {0, 1, 3, 4}, set()]
_WEIGHTS = np.array([1.0, 2.0, 4.0, 8.0, 3.0, 0.0, 0.0, 0.0])


def test_four_rows_worked_out_by_hand() -> None:
    result = judged(_RANKED, _TRUTH)
    assert result.precision(1) == pytest.approx(2 / 3)
    assert result.precision(3) == pytest.approx((2 + 1 + 2) / 9)
    assert result.recall(1) == pytest.approx((1 / 2 + 0 + 1 / 4) / 3)
    assert result.recall(3) == pytest.approx((1 + 1 + 1 / 2) / 3)
    # Row 1: (1 + 0.5) / (1 + 0.630930) = 0.919721; row 2: 0.630930; row 3: 1.630930 / 2.130930 = 0.765361.
    assert result.ndcg(3) == pytest.approx(0.772004, abs=1e-6)
    # Won 4 + 0 + 8, the heaviest would be 4 + 2 + 8.
    assert result.propensity_precision(1, _WEIGHTS) == pytest.approx(12 / 14)
    # Won 5 + 2 + 9, the three heaviest would be (4 + 1) + 2 + (8 + 3 + 2).
    assert result.propensity_precision(3, _WEIGHTS) == pytest.approx(16 / 20)
    # Won: row 1 (4 + 0.5) / 1.630930 = 2.759163; row 2 2 · 0.630930 = 1.261860; row 3 (8 + 0.630930) / 2.130930
    # = 4.050312. Best: row 1 (4 + 0.630930) / 1.630930 = 2.839442; row 2 2; row 3 (8 + 3 · 0.630930 + 2 · 0.5) /
    # 2.130930 = 5.111754. The sums are 8.071334 and 9.951196.
    assert result.propensity_ndcg(3, _WEIGHTS) == pytest.approx(8.071334 / 9.951196, abs=1e-6)
    # At one place there is no discount: as PSP@1.
    assert result.propensity_ndcg(1, _WEIGHTS) == pytest.approx(12 / 14)


def test_coverage_worked_out_by_hand() -> None:
    result = judged(_RANKED, _TRUTH)
    # Labels 0 to 4 are in the truth; 2 and 3 are hit in first place, 0 to 3 in the first three. Row 4 hits nothing
    # but predicts 4.
    assert result.coverage(1) == pytest.approx(2 / 5)
    assert result.coverage(3) == pytest.approx(4 / 5)
    assert (result.predicted(1), result.predicted(3)) == (4, 5)


def test_contributions_add_up() -> None:
    result = judged(_RANKED, _TRUTH)
    rare = np.isin(np.arange(LABELS), [2, 3])
    # Labels 2 and 3 are hit once each, in rows 1 and 3: two of the five hits, and 4 + 8 of what was won.
    assert result.precision_parts(3, rare).figure == pytest.approx(2 / 9)
    assert result.precision_parts(3, ~rare).figure == pytest.approx(3 / 9)
    assert result.propensity_precision_parts(3, _WEIGHTS, rare).figure == pytest.approx(12 / 20)
    assert result.propensity_precision_parts(3, _WEIGHTS, ~rare).figure == pytest.approx(4 / 20)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_rows_without_labels_are_no_nan(rows: int) -> None:
    result = Judged.of(np.tile([[0, 1, -1]], (rows, 1)), csr_matrix((rows, LABELS), dtype=np.float32))
    weights = np.ones(LABELS)
    figures = [result.precision(5), result.recall(5), result.ndcg(5), result.coverage(5)]
    figures += [result.propensity_precision(5, weights), result.propensity_ndcg(5, weights)]
    assert figures == [0.0] * 6
    assert result.restricted_recall(5, np.ones(LABELS, dtype=bool)) == (0.0, 0)
    assert RowParts(np.zeros(rows), np.zeros(rows)).figure == 0.0


def test_excluded_labels_are_taken_out_and_the_rest_moves_up() -> None:
    rows = np.array([[4, 2, 1, 0], [3, 1, -1, -1], [0, 1, 2, 3]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, -np.inf, -np.inf], [0.4, 0.3, 0.2, 0.1]], dtype=np.float32)
    # Row 2 excludes label 7, which is not among its labels; row 3 excludes nothing.
    excluded = csr_matrix(([1, 1, 1, 1], ([0, 0, 1, 1], [2, 4, 3, 7])), shape=(3, LABELS))
    best, kept = without(rows, scores, excluded, 3)
    assert best.tolist() == [[1, 0, -1], [1, -1, -1], [0, 1, 2]]
    assert kept[0].tolist() == pytest.approx([0.7, 0.6, -np.inf])
    assert kept[1, 0] == pytest.approx(0.4)
    same, _ = without(rows, scores, csr_matrix((3, LABELS), dtype=np.float32), 4)
    assert same.tolist() == rows.tolist()


def test_calibration_error_worked_out_by_hand() -> None:
    # Bin 0.0-0.1: said 0.05 twice, right once; bin 0.9-1.0: said 0.9 and 1.0, both right.
    found = Reliability.of(np.array([0.05, 0.05, 0.9, 1.0], dtype=np.float32), np.array([True, False, True, True]))
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.said[[0, 9]].tolist() == pytest.approx([0.05, 0.95])
    assert found.came_true[[0, 9]].tolist() == [0.5, 1.0]
    assert found.error == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    nothing = Reliability.of(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool))
    assert (nothing.error, int(nothing.counts.sum())) == (0.0, 0)


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
        gains, worth, possible = [], 0.0, 0.0
        for row, top, positives in zip(hits, tops, truth, strict=True):
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(positives))))
            gains.append(sum(hit / math.log2(place + 2) for place, hit in enumerate(row)) / ideal)
            heaviest = sorted((weights[label] for label in positives), reverse=True)[:k]
            worth += sum(hit * weights[top[place]] / math.log2(place + 2) for place, hit in enumerate(row)) / ideal
            possible += sum(weight / math.log2(place + 2) for place, weight in enumerate(heaviest)) / ideal
        assert result.ndcg(k) == pytest.approx(np.mean(gains))
        assert result.propensity_ndcg(k, weights) == pytest.approx(worth / possible)
        wanted = set().union(*truth)
        found = {label for top, positives in zip(tops, truth, strict=True) for label in top if label in positives}
        assert result.coverage(k) == pytest.approx(len(found) / len(wanted))


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
