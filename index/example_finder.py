"""Which examples of a memory a text is, told by its vector: of their texts a bundle keeps none."""

from __future__ import annotations

from threading import Lock

import faiss
import numpy as np
from numpy.typing import NDArray

from index.packed import spans

# 1 − cosine of two vectors of one text, which rounding parts.
_APART = 1e-5
# How far such vectors, each stored in few bits, can be apart along one direction.
_WINDOW = 1e-3
# Vectors are sorted into cells of this width along so many directions: of a million, a few share one.
_CELL, _DIRECTIONS = 4e-3, 4
# Cells along one direction, from -half to half: those of vectors of length 1, and room for what rounding adds.
_CELLS = 1024
_BLOCK = 1 << 16
_COMPARED_TOGETHER = 1 << 13


class ExampleFinder:
    """Finds every one of a memory's first `count` vectors that is a given one, where a graph would find most of them.

    Vectors are compared as the memory stores them. They are ordered by cells along a few directions once, at the first
    question; then only the few in the cells around are looked at.
    """

    def __init__(self, memory: faiss.Index, count: int) -> None:
        """memory: a FAISS index of inner products, not to be changed any more; of no vector where count is 0."""
        self._stored = _readable(memory) if count else memory
        self._count, self._lock = count, Lock()
        directions = np.random.default_rng(0).standard_normal((memory.d, _DIRECTIONS))
        self._directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
        self._order: NDArray[np.int64] | None = None
        self._cells = np.zeros(0, dtype=np.int64)

    def find(self, vector: NDArray[np.float32]) -> NDArray[np.int64]:
        """The places (m,) of a unit vector (dim,), ascending; none where it is not there."""
        return self.pairs(vector[None])[1]

    def pairs(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of these unit vectors (n, dim) are at which places: their numbers in [0, n) and the places, both (m,),
        in order of the two."""
        if not self._count or not len(vectors):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        order = self._ordered()
        own = self._stored.sa_decode(self._stored.sa_encode(np.ascontiguousarray(vectors, dtype=np.float32)))
        cells = _cells_around(own @ self._directions)  # (n, cells)
        first = np.searchsorted(self._cells, cells)
        lengths = np.searchsorted(self._cells, cells, side="right") - first
        # A cell that was named before.
        lengths[:, 1:][cells[:, 1:] == cells[:, :-1]] = 0
        near = order[spans(first.ravel(), lengths.ravel())]
        number = np.repeat(np.arange(len(vectors)), lengths.sum(axis=1))
        same = np.zeros(len(near), dtype=np.bool_)
        for start in range(0, len(near), _COMPARED_TOGETHER):
            part = slice(start, start + _COMPARED_TOGETHER)
            same[part] = _cosines(self._vectors(near[part]), own[number[part]]) >= 1.0 - _APART
        number, near = number[same], near[same]
        found = np.lexsort((near, number))
        return number[found], near[found]

    def _ordered(self) -> NDArray[np.int64]:
        with self._lock:
            if self._order is None:
                cells = np.concatenate(
                    [
                        _cell(self._vectors(np.arange(start, min(start + _BLOCK, self._count))) @ self._directions)
                        for start in range(0, self._count, _BLOCK)
                    ]
                )
                order = np.argsort(cells, kind="stable")
                self._cells, self._order = cells[order], order
            return self._order

    def _vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self._stored.reconstruct_batch(places), dtype=np.float32)


def _cell(along: NDArray[np.float32]) -> NDArray[np.int64]:
    """The cells (n,) of vectors that are so far along each direction, (n, directions)."""
    return np.asarray(_steps(along) @ _CELLS ** np.arange(along.shape[1]), dtype=np.int64)


def _cells_around(along: NDArray[np.float32]) -> NDArray[np.int64]:
    """All cells (n, 2 ** directions) that such vectors, stored in few bits, may have come to; each ascending, some of
    them several times."""
    count = along.shape[1]
    # (n, 2, directions)
    ends = np.stack([_steps(along - _WINDOW), _steps(along + _WINDOW)], axis=1) * _CELLS ** np.arange(count)
    chosen = np.arange(1 << count)[:, None] >> np.arange(count) & 1
    return np.sort(ends[:, chosen, np.arange(count)].sum(axis=2), axis=1)


def _steps(along: NDArray[np.float32]) -> NDArray[np.int64]:
    half = _CELLS // 2
    steps: NDArray[np.int64] = np.clip(np.floor(along / _CELL).astype(np.int64) + half, 0, _CELLS - 1)
    return steps


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row (m, dim) with that beside it, (m,)."""
    one_wide, other_wide = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one_wide, axis=1) * np.linalg.norm(other_wide, axis=1)
    cosines: NDArray[np.float64] = np.einsum("md,md->m", one_wide, other_wide) / np.maximum(lengths, 1e-30)
    return cosines


def _readable(memory: faiss.Index) -> faiss.Index:
    """What of the index keeps the vectors, ready to give each of them back."""
    if isinstance(memory, faiss.IndexRefine):
        return faiss.downcast_index(memory.refine_index)
    if hasattr(memory, "hnsw"):
        return faiss.downcast_index(memory.storage)
    lists = faiss.try_extract_index_ivf(memory)
    if lists is not None:
        # Searches do not look at it, so that they may go on meanwhile.
        lists.make_direct_map()
    return memory
