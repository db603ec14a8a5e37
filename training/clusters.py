"""Balanced clusters of vectors: queries near each other, whose labels are hard negatives of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 4


def balanced_clusters(vectors: NDArray[np.float32], size: int, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of `vectors` (n, dim) in clusters of at least size / 2 and at most `size` rows, each row once.

    Balanced 2-means again and again (the clustering of NGAME, WSDM 2023): both halves are equal to one row, so that
    clusters fill batches evenly. One cluster where n <= size; none where n is 0.
    """
    waiting, done = [np.arange(len(vectors))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) > size:
            waiting.extend(_halves(vectors, rows, random))
        elif len(rows):
            done.append(rows)
    return done


def cluster_size(start: int, end: int, epoch: int, epochs: int) -> int:
    """Queries in a cluster in this epoch (from 0): from `start` in the first to `end` in the last, by equal factors.

    Small clusters first: early vectors say little of which queries are near each other.
    """
    share = epoch / max(1, epochs - 1)
    size: float = start * (end / start) ** share
    return max(1, round(size))


def _halves(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    inside = vectors[rows]
    one, other = inside[random.choice(len(rows), 2, replace=False)]
    half = len(rows) // 2
    order = np.arange(len(rows))
    for _ in range(_ROUNDS):
        order = np.argpartition(inside @ (other - one), half)
        one, other = inside[order[:half]].mean(axis=0), inside[order[half:]].mean(axis=0)
    return rows[order[:half]], rows[order[half:]]
