"""Groups for the filters of benchmarks/adding.py."""

from __future__ import annotations

import numpy as np
import pytest

import adding
from index.clustered import clustered


def test_a_topic_holds_what_is_nearest_to_its_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "_ROWS", 70)
    vectors, _ = clustered(300, 16, 0)
    found = adding.topics(vectors, 20)
    assert found.dtype == np.int64
    # The centres are rows of their own topics; in float64 each row is nearest to that of its own.
    products = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    centres = np.random.default_rng(4).choice(300, 20, replace=False)
    assert (found[centres] == np.arange(20)).all()
    assert (found == products[:, centres].argmax(axis=1)).all()


def test_fewer_vectors_than_topics() -> None:
    vectors, _ = clustered(3, 4, 0)
    assert sorted(adding.topics(vectors).tolist()) == [0, 1, 2]
