"""Calibration against scikit-free isotonic regression by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from index.calibration import Calibration, fit_calibration


def test_probabilities_are_the_shares_of_hits_and_rise() -> None:
    random = np.random.default_rng(0)
    scores = random.random(50_000).astype(np.float32)
    hits = random.random(50_000) < scores**2
    fitted = fit_calibration(scores, hits)
    for score in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert fitted(np.array([score], dtype=np.float32))[0] == pytest.approx(score**2, abs=0.03)
    grid = fitted(np.linspace(-1, 2, 500).astype(np.float32))
    assert (np.diff(grid) >= 0).all()
    assert 0 <= grid.min() <= grid.max() <= 1


def test_pools_what_violates_the_order() -> None:
    # Hits fall with the score: the only rising fit is their mean.
    scores = np.arange(10, dtype=np.float32)
    fitted = fit_calibration(scores, scores < 4, bins=10)
    assert fitted(scores).tolist() == pytest.approx([0.4] * 10)


def test_minimises_the_squared_error_among_rising_fits() -> None:
    hits = np.array([0, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    scores = np.arange(8, dtype=np.float32)
    fitted = fit_calibration(scores, hits, bins=8)
    # By hand: blocks {0}, {1, 0, 0}, {1, 1, 0}, {1}.
    assert sorted(set(fitted.probabilities)) == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_edges() -> None:
    nothing = fit_calibration(np.zeros(0, dtype=np.float32), np.zeros(0, dtype=bool))
    assert nothing(np.array([0.25], dtype=np.float32))[0] == pytest.approx(0.25)
    one = fit_calibration(np.array([0.3], dtype=np.float32), np.array([True]))
    assert one(np.array([-5, 0.3, 7], dtype=np.float32)).tolist() == [1.0, 1.0, 1.0]
    same = fit_calibration(np.full(9, 0.5, dtype=np.float32), np.arange(9) < 3)
    assert same(np.array([0.5], dtype=np.float32))[0] == pytest.approx(1 / 3, abs=0.35)
    assert Calibration.from_json(one.to_json()) == one
    assert fit_calibration(np.ones(5, dtype=np.float32), np.ones(5, dtype=bool))(np.array([-np.inf], dtype=np.float32))[
        0
    ] == pytest.approx(1.0)
