"""Made-up label vectors and queries in the structure of trained ones, any number of them, always the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_BLOCK = 50_000
_TOPIC = 50
_TOPICS = 40


def clustered(count: int, dim: int = 256, queries: int = 1_000) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Label vectors (count, dim) and queries (queries, dim) that are not among them, all of unit length.

    Like the label vectors of three trained models over 25,000 to 37,000 labels, and the 280,000 example vectors of one,
    measured with their queries: variance falls off over the dimensions (its participation ratio is 100 to 140 of 256);
    labels lie in topics of unequal size, 50 on average, tight or loose, and these in fields of 40 topics; a query has
    a cosine of about 0.7 with its best label, 0.4 to 0.5 with the tenth, and a median gap of 0.003 to the eleventh.
    """
    blocks = _blocks(count, dim, queries)
    asked = next(blocks)
    return np.concatenate([next(blocks) for _ in range(0, count, _BLOCK)]), asked


def write_clustered(path: Path, count: int, dim: int = 256, queries: int = 1_000) -> NDArray[np.float32]:
    """The same label vectors written to a .npy file in blocks, for more of them than memory holds; the queries."""
    blocks = _blocks(count, dim, queries)
    asked = next(blocks)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dim))
    for start in range(0, count, _BLOCK):
        file[start : start + _BLOCK] = next(blocks)
    file.flush()
    return asked


def _blocks(count: int, dim: int, queries: int) -> Iterator[NDArray[np.float32]]:
    """The queries, and then the label vectors in blocks."""
    random = np.random.default_rng(0)
    spread = ((np.arange(dim) + 16.0) ** -0.5).astype(np.float32)
    spread /= np.linalg.norm(spread)

    def noise(rows: int) -> NDArray[np.float32]:
        return random.standard_normal((rows, dim), dtype=np.float32) * spread

    topics = max(16, count // _TOPIC)
    fields = _unit(noise(max(8, topics // _TOPICS)))
    centres = _unit(0.6 * fields[random.integers(len(fields), size=topics)] + 0.8 * noise(topics))
    sizes = (np.arange(topics) + topics / 50) ** -0.7
    until = np.cumsum(sizes / sizes.sum())
    for start in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - start)
        topic = np.minimum(np.searchsorted(until, random.random(rows)), topics - 1)
        tight = (0.45 + 0.4 * random.beta(3, 3, rows)).astype(np.float32)[:, None]
        vectors = _unit(tight * centres[topic] + np.sqrt(1 - tight * tight) * noise(rows))
        if start == 0:
            own = random.integers(rows, size=queries)
            yield _unit(0.68 * vectors[own] + 0.73 * _unit(0.45 * centres[topic[own]] + 0.9 * noise(queries)))
        yield vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
