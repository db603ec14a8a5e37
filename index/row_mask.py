"""Which rows of an index are shown, as packed bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from weakref import ref

import faiss
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowMask:
    """Immutable: `count` of `size` rows are shown; bits: (ceil(size / 8),) uint8, lowest first, or None when all are.

    Bits beyond the last row are 0.
    """

    size: int
    count: int
    bits: NDArray[np.uint8] | None = None

    @classmethod
    def of_all(cls, size: int) -> RowMask:
        return cls(size, size)

    @classmethod
    def of(cls, shown: NDArray[np.bool_]) -> RowMask:
        return cls(len(shown), int(np.count_nonzero(shown)), np.packbits(shown, bitorder="little"))

    @classmethod
    def only(cls, size: int, rows: NDArray[np.int64]) -> RowMask:
        """Of these rows; all in [0, size)."""
        shown = np.zeros(size, dtype=np.bool_)
        shown[rows] = True
        return cls.of(shown)

    def without(self, rows: NDArray[np.int64]) -> RowMask:
        """Less these rows (m,), all in [0, size), shown or not; O(m) beside one copy of the bits."""
        gone = np.unique(rows[self.has(rows)])
        if not len(gone):
            return self
        bits = self._written().copy()
        np.bitwise_and.at(bits, gone >> 3, ~_bit(gone))
        return RowMask(self.size, self.count - len(gone), bits)

    def including(self, rows: NDArray[np.int64]) -> RowMask:
        """With these rows (m,), all in [0, size), shown before or not."""
        more = np.unique(rows[~self.has(rows)])
        if not len(more):
            return self
        bits = self._written().copy()
        np.bitwise_or.at(bits, more >> 3, _bit(more))
        return RowMask(self.size, self.count + len(more), bits)

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of each row (m,), all in [0, size), whether it is shown."""
        if self.bits is None:
            return np.ones(len(rows), dtype=np.bool_)
        shown: NDArray[np.bool_] = (self.bits[rows >> 3] & _bit(rows)) != 0
        return shown

    def rows(self) -> NDArray[np.int64]:
        """Those shown, ascending."""
        return np.arange(self.size) if self.bits is None else np.flatnonzero(self.flags())

    def flags(self) -> NDArray[np.bool_]:
        """(size,), whether each row is shown."""
        if self.bits is None:
            return np.ones(self.size, dtype=np.bool_)
        return np.unpackbits(self.bits, count=self.size, bitorder="little").view(np.bool_)

    def both(self, other: RowMask) -> RowMask:
        """Shown here and in another mask of the same size."""
        if self.bits is None or other.bits is None:
            return other if self.bits is None else self
        bits = self.bits & other.bits
        return RowMask(self.size, int(np.bitwise_count(bits).sum(dtype=np.int64)), bits)

    def grown(self, more: int) -> RowMask:
        """With `more` shown rows after the last."""
        if self.bits is None:
            return RowMask.of_all(self.size + more)
        size = self.size + more
        bits = np.zeros((size + 7) // 8, dtype=np.uint8)
        bits[: len(self.bits)] = self.bits
        first = (self.size + 7) // 8
        bits[first:] = 0xFF
        if self.size % 8 and more:
            bits[first - 1] |= 0xFF << self.size % 8 & 0xFF
        if size % 8:
            bits[-1] &= 0xFF >> (8 - size % 8)
        return RowMask(size, self.count + more, bits)

    def selector(self) -> faiss.IDSelector | None:
        """For a FAISS search, which reads the bits in place; None when all rows are shown."""
        return None if self.bits is None else faiss.IDSelectorBitmap(self.bits)

    def _written(self) -> NDArray[np.uint8]:
        return np.packbits(self.flags(), bitorder="little") if self.bits is None else self.bits


def _bit(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.left_shift(np.uint8(1), (rows & 7).astype(np.uint8))


class MaskCache:
    """Masks made of arrays of rows, kept for the arrays that are read-only and still in use; for many threads."""

    def __init__(self, most: int = 16) -> None:
        self._most, self._lock = most, Lock()
        self._kept: dict[int, tuple[ref[NDArray[np.int64]], RowMask]] = {}

    def of(self, rows: NDArray[np.int64], make: Callable[[NDArray[np.int64]], RowMask]) -> RowMask:
        """What `make` gives for them, from before where it was asked for before."""
        kept = self._kept.get(id(rows))
        # Another array may have come to where one was that is gone.
        if kept is not None and kept[0]() is rows:
            return kept[1]
        mask = make(rows)
        if not rows.flags.writeable:
            with self._lock:
                self._kept[id(rows)] = ref(rows), mask
                while len(self._kept) > self._most:
                    del self._kept[next(iter(self._kept))]
        return mask
