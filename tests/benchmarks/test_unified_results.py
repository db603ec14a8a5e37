"""What is kept and how it is summed up: spread, the Pareto front, gains at equal bytes, the page, the picture."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import numpy as np
import pytest

from unified_plot import draw
from unified_results import Point, Results, Row, front, gains, page, pairs, points
from unified_tasks import COLLISIONLESS, METHODS

SPLIT, SHARED = "hashing, table per feature", "hashing, multiplexed"


def _row(method: str, size: float, seed: int, test: float, dataset: str = "small") -> Row:
    return Row(dataset, method, size, seed, round(1000 * size), 16, 1000, 400, 50.0, test, 1.5)


def _results() -> Results:
    results = Results(figures={"small": "accuracy"}, settings={"small": ["a=1"]})
    for seed, shift in enumerate((0.0, 1.0, 2.0)):
        results.add(_row(COLLISIONLESS.name, 1.0, seed, 90 + shift))
        for size, base in ((0.1, 80.0), (1.0, 88.0)):
            results.add(_row(SPLIT, size, seed, base + shift))
            results.add(_row(SHARED, size, seed, base + 3 + 2 * shift))
    return results


def test_points_are_means_and_standard_deviations_over_seeds() -> None:
    found = {(point.method, point.size): point for point in points(_results().rows)}
    assert found[SHARED, 0.1].mean == pytest.approx(85)
    assert found[SHARED, 0.1].spread == pytest.approx(statistics.stdev([83, 85, 87]))
    assert (found[SHARED, 0.1].bytes, found[SHARED, 0.1].seeds) == (100 * 16 * 4, 3)
    assert points([_row(SPLIT, 1.0, 0, 7.0)]) == [Point(SPLIT, 1.0, 64000.0, 7.0, 0.0, 1)]
    assert points([]) == []


def test_the_front_is_what_nothing_is_better_than_in_one_and_as_good_in_the_other() -> None:
    random = np.random.default_rng(0)
    of = [Point(str(n), 1.0, float(b), float(a), 0.0, 1) for n, (b, a) in enumerate(random.integers(0, 12, (60, 2)))]
    on = front(of)
    for point, other in itertools.product(of, of):
        better = other.bytes <= point.bytes and other.mean >= point.mean
        if better and (other.bytes < point.bytes or other.mean > point.mean):
            assert point not in on
    assert all((on_.bytes, on_.mean) <= (later.bytes, later.mean) for on_, later in itertools.pairwise(on))
    assert {(point.bytes, point.mean) for point in on}  # never empty
    assert front([]) == []


def test_gains_are_paired_by_seed() -> None:
    rows = [row for row in _results().rows if (row.method, row.size, row.seed) != (SPLIT, 1.0, 2)]
    found = gains(rows, SHARED, SPLIT)
    assert found[0.1] == pytest.approx((4.0, statistics.stdev([3, 4, 5]) / 3**0.5))
    assert found[1.0] == pytest.approx((3.5, 0.5))  # of the two seeds that both have
    assert gains(rows, SHARED, "multihash, multiplexed") == {}
    assert set(itertools.chain(*pairs())) == set(METHODS) - {COLLISIONLESS}


def test_results_are_read_as_they_were_written_and_a_row_replaces_its_like(tmp_path: Path) -> None:
    results = _results()
    results.add(_row(SHARED, 1.0, 0, 12.0))
    results.write(tmp_path / "found.json")
    again = Results.read(tmp_path / "found.json")
    assert again == results
    assert [row.test for row in again.rows if row.key == ("small", SHARED, 1.0, 0)] == [12.0]
    assert Results.read(tmp_path / "none.json") == Results()


def test_other_settings_make_the_rows_of_their_dataset_worthless() -> None:
    results = _results()
    results.add(_row(SHARED, 1.0, 0, 12.0, dataset="other"))
    results.expect("small", "accuracy", ["a=1"])
    assert len(results.rows) == 16
    results.expect("small", "accuracy", ["a=2"])
    assert [row.dataset for row in results.rows] == ["other"]


def test_a_machine_is_listed_once_whatever_the_date() -> None:
    results = Results()
    assert results.machine({"date": "1", "cores": 2}) == 0
    assert results.machine({"date": "2", "cores": 4}) == 1
    assert results.machine({"date": "3", "cores": 2}) == 0
    assert len(results.machines) == 2


def test_the_page_has_curves_gains_front_and_what_a_tenth_loses() -> None:
    text = page(_results())
    assert "## small: accuracy" in text
    assert "1,000 distinct values, 3 seeds, 400 test queries; a figure's standard error" in text
    assert f"is about {100 * (0.91 * 0.09 / 400) ** 0.5:.1f} points." in text
    assert "| hashing, multiplexed | **85.00** ± 2.00 | **93.00** ± 2.00 |" in text
    assert "| collisionless |  | 91.00 ± 1.00 |" in text
    assert "| hashing, table per feature | +4.00 ± 0.58 | +4.00 ± 0.58 |" in text
    assert "Pareto front: hashing, multiplexed at 0.1 (85.00); hashing, multiplexed at 1 (93.00)." in text
    assert "points: hashing, table per feature 10.00; hashing, multiplexed 6.00." in text
    assert "##" not in page(Results()).partition("\n")[2]


def test_the_best_of_a_column_is_the_highest_number() -> None:
    results = Results(figures={"small": "AUC"})
    results.add(_row(SPLIT, 1.0, 0, 9.5))
    results.add(_row(SHARED, 1.0, 0, 10.25))
    assert "| hashing, multiplexed | **10.25** ± 0.00 |" in page(results)


def test_the_picture_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    draw(_results(), tmp_path / "one.svg")
    draw(_results(), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in (tmp_path / "one.svg").read_bytes()
