"""Which examples of a memory a text is, told by its vector: of their texts a bundle keeps none."""

from __future__ import annotations

from threading import Lock

import faiss
import numpy as np
from numpy.typing import NDArray

# 1 − cosine of two vectors of one text, which rounding parts.
_APART = 1e-5
# How far such vectors, each stored in few bits, can be apart along one direction.
_WINDOW = 1e-3
_BLOCK = 1 << 16


class ExampleFinder:
    """Finds every one of a memory's first `count` vectors that is a given one, where a graph would find most of them.

    Vectors are compared as the memory stores them. They are ordered along a direction once, at the first question;
    then only the few near along it are looked at.
    """

    def __init__(self, memory: faiss.Index, count: int) -> None:
        """memory: a FAISS index of inner products, not to be changed any more; of no vector where count is 0."""
        self._stored = _readable(memory) if count else memory
        self._count, self._lock = count, Lock()
        direction = np.random.default_rng(0).standard_normal(memory.d)
        self._direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        self._order: NDArray[np.int64] | None = None
        self._along = np.zeros(0, dtype=np.float32)

    def find(self, vector: NDArray[np.float32]) -> NDArray[np.int64]:
        """The places (m,) of a unit vector (dim,), ascending; none where it is not there."""
        if not self._count:
            return np.zeros(0, dtype=np.int64)
        order = self._ordered()
        own = np.asarray(self._stored.sa_decode(self._stored.sa_encode(vector[None])), dtype=np.float32)[0]
        place = float(own @ self._direction)
        first, last = np.searchsorted(self._along, (place - _WINDOW, place + _WINDOW))
        near = np.sort(order[first:last])
        if not len(near):
            return near
        stored, wide = self._vectors(near).astype(np.float64), own.astype(np.float64)
        cosines = stored @ wide / np.maximum(np.linalg.norm(stored, axis=1) * np.linalg.norm(wide), 1e-30)
        same: NDArray[np.int64] = near[cosines >= 1.0 - _APART]
        return same

    def _ordered(self) -> NDArray[np.int64]:
        with self._lock:
            if self._order is None:
                along = np.concatenate(
                    [
                        self._vectors(np.arange(start, min(start + _BLOCK, self._count))) @ self._direction
                        for start in range(0, self._count, _BLOCK)
                    ]
                )
                order = np.argsort(along, kind="stable")
                self._along, self._order = along[order], order
            return self._order

    def _vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self._stored.reconstruct_batch(places), dtype=np.float32)


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
