"""Candidates found by rounded codes, scored again by the vectors themselves."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.typing import NDArray


def candidates(k: int, rescore: float) -> int:
    """How many rows to ask of codes for the k best, where `rescore` times as many hold them."""
    return max(k, ceil(k * rescore))


def rescored(
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    k: int,
    fetch: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best (n, k) of candidate rows (n, c) by inner product with what `fetch` gives for rows (m,): (m, dim).

    Equal scores in row order; a row of -1 is none, comes last and scores -inf.
    """
    count, width = rows.shape
    if not rows.size:
        return np.full((count, min(k, width)), -np.inf, dtype=np.float32), rows[:, :k]
    there = rows >= 0
    scores = np.full((count, width), -np.inf, dtype=np.float32)
    vectors = fetch(np.maximum(rows, 0).ravel()).reshape(count, width, -1)
    scores[there] = np.einsum("nd,ncd->nc", queries, vectors)[there]
    best = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
