"""Candidates scored again: a loop over them is the oracle."""

from __future__ import annotations

import numpy as np

from index.rescoring import candidates, rescored


def test_the_best_of_the_candidates_come_out_in_order() -> None:
    random = np.random.default_rng(0)
    vectors, queries = random.standard_normal((30, 5), np.float32), random.standard_normal((4, 5), np.float32)
    rows = np.stack([random.permutation(30)[:12] for _ in range(4)])
    scores, found = rescored(queries, rows, 6, lambda wanted: vectors[wanted])
    for query, mine, given, had in zip(queries, found, scores, rows, strict=True):
        true = sorted(((float(query.astype(np.float64) @ vectors[row]), row) for row in had.tolist()), reverse=True)[:6]
        assert mine.tolist() == [row for _, row in true]
        np.testing.assert_allclose(given, [score for score, _ in true], rtol=1e-5)


def test_rows_that_are_none_come_last_and_equal_ones_in_row_order() -> None:
    vectors = np.array([[1.0], [2.0], [1.0]], np.float32)
    scores, rows = rescored(
        np.ones((1, 1), np.float32), np.array([[-1, 2, 0, 1, -1]]), 5, lambda wanted: vectors[wanted]
    )
    assert rows.tolist() == [[1, 0, 2, -1, -1]]
    assert scores.tolist() == [[2.0, 1.0, 1.0, -np.inf, -np.inf]]


def test_none_at_all() -> None:
    none = np.zeros((0, 3), np.float32)
    assert rescored(none, np.zeros((0, 5), np.int64), 2, lambda wanted: none)[1].shape == (0, 2)
    assert rescored(np.ones((2, 3), np.float32), np.zeros((2, 0), np.int64), 2, lambda wanted: none)[0].shape == (2, 0)


def test_how_many_are_candidates() -> None:
    assert [candidates(10, factor) for factor in (1.0, 1.2, 1.25, 16.0)] == [10, 12, 13, 160]
    assert candidates(1, 1.2) == 2
    assert candidates(0, 3.0) == 0
