"""Examples known again by their vectors, exactly, in every kind of memory."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from index.example_finder import ExampleFinder
from snapshot_support import MEMORIES, opened_memory


@pytest.mark.parametrize("factory", MEMORIES)
def test_an_example_is_known_again_by_its_vector(factory: str, tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    vectors = chooser.standard_normal((2000, 64)).astype(np.float32)
    vectors[500:600] = vectors[7]  # the same text a hundred times
    vectors[700] = vectors[8] + 0.02 * chooser.standard_normal(64)  # one much like another
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    memory = opened_memory(factory, vectors, tmp_path)
    finder = ExampleFinder(memory, 2000)
    for row in (0, 8, 700, 1999):
        shaken = vectors[row] * np.float32(1 + 3e-7)
        assert finder.find(shaken).tolist() == [row]
    assert finder.find(vectors[7]).tolist() == [7, *range(500, 600)]
    # Those that were added since the training come behind.
    assert ExampleFinder(memory, 550).find(vectors[7]).tolist() == [7, *range(500, 550)]
    stranger = vectors[:2].sum(axis=0)
    assert finder.find(np.asarray(stranger / np.linalg.norm(stranger), dtype=np.float32)).tolist() == []


def test_in_an_empty_memory_nothing_is_known_again() -> None:
    assert ExampleFinder(faiss.IndexFlatIP(4), 0).find(np.full(4, 0.5, dtype=np.float32)).tolist() == []
