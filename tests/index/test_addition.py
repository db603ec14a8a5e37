"""Vectors of labels that are added while serving, against the formulas written out by hand in float64."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.addition import FILE, VOTES, Addition, added_vectors, measure_addition, open_map
from index.errors import BundleError
from index.label_vector import unit

DIM = 6


def _label(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    """The text vector of a label, the sum of the vectors of `count` examples, and how many they are, one row each."""
    random = np.random.default_rng(seed)
    text = unit(random.normal(size=(1, DIM)) + 1).astype(np.float32)
    examples = unit(random.normal(size=(count, DIM)) + 1)
    return text, examples.sum(axis=0, keepdims=True), np.array([[count]], dtype=np.float32)


def _examples(count: int = 200) -> NDArray[np.float32]:
    return unit(np.random.default_rng(9).normal(size=(count, DIM)) + 1).astype(np.float32)


def _nothing(rows: int = 1) -> NDArray[np.float32]:
    return np.zeros((rows, DIM), dtype=np.float32)


def _by_hand(
    text: NDArray[np.float32], total: NDArray[np.float64], count: int, whitening: NDArray[np.float64]
) -> NDArray[np.float64]:
    said, shown = text[0].astype(np.float64) @ whitening, total[0] @ whitening
    found = said / np.linalg.norm(said) + (count / (count + 1) * shown / np.linalg.norm(shown) if count else 0.0)
    return np.asarray(found / np.linalg.norm(found))


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_an_old_bundle_gives_text_and_centroid(count: int) -> None:
    text, total, counts = _label(1, count)
    found = added_vectors(text, _nothing(), total, counts, Addition())
    assert np.abs(found[0] - _by_hand(text, total, count, np.eye(DIM))).max() < 1e-6
    assert Addition.from_json({}) == Addition()
    assert np.array_equal(added_vectors(text, _nothing(), total, counts, Addition(3.0)), found)


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
@pytest.mark.parametrize("ridge", [0.1, 3.0])
def test_a_new_label_goes_through_the_map(count: int, ridge: float) -> None:
    text, total, counts = _label(2, count)
    examples = _examples()
    settings, label_map = measure_addition(examples, ridge)
    assert settings == Addition(ridge, VOTES)
    wide = examples.astype(np.float64)
    moment = wide.T @ wide / len(wide)
    whitening = np.linalg.inv(moment + ridge * np.trace(moment) / DIM * np.eye(DIM))
    found = added_vectors(text, _nothing(), total, counts, settings, label_map=label_map)
    assert np.abs(found[0] - _by_hand(text, total, count, whitening)).max() < 1e-6
    assert np.isclose(np.linalg.norm(found), 1.0)


def test_the_map_takes_away_what_all_queries_share() -> None:
    examples = _examples()
    settings, label_map = measure_addition(examples)
    text, total, counts = _label(3, 5)
    plain = added_vectors(text, _nothing(), total, counts, Addition())
    calibrated = added_vectors(text, _nothing(), total, counts, settings, label_map=label_map)
    common = unit(examples.mean(axis=0, keepdims=True))
    assert (calibrated @ common.T).item() < (plain @ common.T).item() - 0.1


def test_what_training_left_is_kept_as_it_was() -> None:
    text, total, counts = _label(4, 3)
    trained = np.full((1, DIM), 0.25, dtype=np.float32)
    settings, label_map = measure_addition(_examples())
    found = added_vectors(text, trained, total, counts, settings, label_map=label_map)
    wanted = text[0].astype(np.float64) + 0.25 + 0.75 * total[0] / np.linalg.norm(total[0])
    assert np.abs(found[0] - wanted / np.linalg.norm(wanted)).max() < 1e-6


def test_many_at_once_are_bit_for_bit_each_alone() -> None:
    settings, label_map = measure_addition(_examples())
    parts = [_label(seed, count) for seed, count in enumerate((0, 1, 2, 7, 0, 30))]
    texts, sums, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    sums_before, texts_before = sums.copy(), texts.copy()
    together = added_vectors(texts, _nothing(6), sums, counts, settings, label_map=label_map)
    for row, (text, total, count) in enumerate(parts):
        alone = added_vectors(text, _nothing(), total, count, settings, label_map=label_map)
        assert np.array_equal(together[row], alone[0])
    assert np.array_equal(sums, sums_before)
    assert np.array_equal(texts, texts_before)


def test_a_label_of_which_nothing_is_known_stays_zero() -> None:
    settings, label_map = measure_addition(_examples())
    for rows in (1, 0):
        sums, counts = np.zeros((rows, DIM)), np.zeros((rows, 1), dtype=np.float32)
        found = added_vectors(_nothing(rows), _nothing(rows), sums, counts, settings, label_map=label_map)
        assert found.shape == (rows, DIM)
        assert not found.any()


def test_without_examples_there_is_no_map() -> None:
    assert measure_addition(_nothing(0)) == (Addition(), None)
    assert measure_addition(_nothing(4)) == (Addition(), None)


def test_opening_the_map(tmp_path: Path) -> None:
    settings, label_map = measure_addition(_examples())
    assert label_map is not None
    np.save(tmp_path / FILE, label_map)
    opened = open_map(tmp_path, settings, DIM)
    assert opened is not None
    assert np.array_equal(opened, label_map)
    assert open_map(tmp_path, Addition(), DIM) is None
    with pytest.raises(BundleError, match="export it again"):
        open_map(tmp_path, settings, DIM + 1)
    assert Addition.from_json(settings.to_json()) == settings


def test_a_label_costs_less_than_a_millisecond() -> None:
    random = np.random.default_rng(0)
    dim = 256
    settings, label_map = measure_addition(unit(random.normal(size=(500, dim))).astype(np.float32))
    text = unit(random.normal(size=(1, dim))).astype(np.float32)
    trained, sums, counts = np.zeros((1, dim), np.float32), random.normal(size=(1, dim)), np.ones((1, 1), np.float32)
    took = []
    for _ in range(20):
        began = time.perf_counter()
        added_vectors(text, trained, sums, counts, settings, label_map=label_map)
        took.append(time.perf_counter() - began)
    assert min(took) < 1e-3


def test_the_map_is_the_same_however_many_examples_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _examples(1000)
    whole = measure_addition(examples)[1]
    monkeypatch.setattr("index.addition._BLOCK", 7)
    parts = measure_addition(examples)[1]
    assert whole is not None and parts is not None
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
