"""Made-up vectors have the structure that is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.clustered import clustered, write_clustered


def test_they_are_of_unit_length_and_always_the_same() -> None:
    vectors, queries = clustered(3000, 16, 50)
    assert vectors.shape == (3000, 16)
    assert queries.shape == (50, 16)
    assert {vectors.dtype.name, queries.dtype.name} == {"float32"}
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([vectors, queries]), axis=1), 1.0, atol=1e-5)
    again = clustered(3000, 16, 50)
    assert (again[0] == vectors).all()
    assert (again[1] == queries).all()


def test_a_query_is_near_one_label_and_less_near_others() -> None:
    vectors, queries = clustered(20_000, 256, 200)
    best = -np.sort(-(queries @ vectors.T), axis=1)
    assert 0.6 < best[:, 0].mean() < 0.85
    assert 0.35 < best[:, 9].mean() < 0.6
    assert best[:, 0].max() < 0.999


def test_the_same_are_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.clustered._BLOCK", 70)
    vectors, queries = clustered(200, 8, 10)
    asked = write_clustered(tmp_path / "vectors.npy", 200, 8, 10)
    assert (np.load(tmp_path / "vectors.npy") == vectors).all()
    assert (asked == queries).all()


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two(count: int) -> None:
    assert clustered(count, 1, 0)[0].shape == (count, 1)
