"""Bootstrap intervals against a loop over resamples, and against the normal law where it holds."""

from __future__ import annotations

import numpy as np
import pytest

from training import bootstrap
from training.bootstrap import percentile_intervals
from training.metrics import RowParts


def a_mean(values: list[float]) -> RowParts:
    return RowParts(np.array(values), np.ones(len(values)))


def test_equals_a_loop_over_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    won, of = random.random(7), random.random(7) + 0.5
    parts = {"mean": a_mean(random.random(7).tolist()), "ratio": RowParts(won, of)}
    found = percentile_intervals(parts, resamples=50, level=0.9, seed=3)
    drawn = np.random.default_rng(3).integers(0, 7, size=(50, 7))
    means = [np.mean([parts["mean"].won[row] for row in rows]) for rows in drawn]
    ratios = [sum(won[row] for row in rows) / sum(of[row] for row in rows) for rows in drawn]
    for name, figures in (("mean", means), ("ratio", ratios)):
        assert found[name].low == pytest.approx(np.quantile(figures, 0.05))
        assert found[name].high == pytest.approx(np.quantile(figures, 0.95))
    # In small blocks, the last of them not full: the same.
    monkeypatch.setattr(bootstrap, "_BLOCK_NUMBERS", 7 * 8)
    assert percentile_intervals(parts, resamples=50, level=0.9, seed=3) == found


def test_covers_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).random(4000)
    found = percentile_intervals({"mean": RowParts(values, np.ones(4000))}, resamples=2000)["mean"]
    half = 1.959964 * values.std() / np.sqrt(4000)
    assert found.low == pytest.approx(values.mean() - half, abs=half / 10)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 10)


def test_the_seed_decides() -> None:
    parts = {"mean": a_mean(np.random.default_rng(1).random(50).tolist())}
    assert percentile_intervals(parts, seed=1) == percentile_intervals(parts, seed=1)
    assert percentile_intervals(parts, seed=1) != percentile_intervals(parts, seed=2)


def test_one_row_and_equal_rows_leave_no_doubt() -> None:
    found = percentile_intervals({"one": a_mean([0.25])})["one"]
    assert (found.low, found.high) == (0.25, 0.25)
    found = percentile_intervals({"equal": a_mean([0.5] * 9)})["equal"]
    assert (found.low, found.high) == (0.5, 0.5)


def test_no_rows_no_resamples_no_figures() -> None:
    assert percentile_intervals({}) == {}
    assert percentile_intervals({"none": a_mean([])}) == {}
    assert percentile_intervals({"off": a_mean([1.0, 0.0])}, resamples=0) == {}


def test_rows_that_do_not_count_are_left_out() -> None:
    # Two of 40 rows count; in a resample that has neither there is no figure, so none of them is 0.
    of = np.zeros(40)
    of[:2] = 1
    found = percentile_intervals({"few": RowParts(of * 0.5, of), "nobody": RowParts(np.zeros(40), np.zeros(40))})
    assert list(found) == ["few"]
    assert (found["few"].low, found["few"].high) == (0.5, 0.5)
