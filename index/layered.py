"""A built index, vectors added since, and rows that count no more, searched as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.delta import Delta
from index.errors import InputError
from index.layer import Layer
from index.masked_search import BuiltIndex, merged
from index.row_mask import RowMask
from index.sealing import Sealed, apply, seal

# A tail of this size is compared about as fast as a graph is searched.
_TAIL = 4_096
# Beside an exact base so many vectors stay exact too: what is searched exactly stays so.
_EXACT_BELOW = 20_000


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each of n queries its k best rows, best first: `rows` (n, k) int64, `scores` (n, k) float32.

    Where fewer than k rows exist, the rest are row -1 with score -inf.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LayeredIndex:
    """An immutable view: a `base` (rows 0 to ntotal - 1) less the rows that count no more, and a delta of later ones.

    Every change gives a new view and leaves the old one as it was, so that readers never wait for writers; its cost
    grows with the change, beside a copy of one bit for each row of the base. Scores are inner products: vectors may
    have any length. `sealed` is for another thread, now and then: it makes a graph of what the delta searches exactly.
    """

    base: Layer
    delta: Delta

    @classmethod
    def over(
        cls,
        base: Any,
        vectors: NDArray[np.float32] | None = None,
        as_is: NDArray[np.int64] | None = None,
        rescore: float = 1.0,
    ) -> LayeredIndex:
        """base: a FAISS index of inner products, or its copy on a card (index/card_index.py).

        vectors: (base.ntotal, dim) float32, of any length but 0 for rows that are searched; needed for exact search of
        few rows of a base that keeps rounded codes alone, and may be a memory map. The base has them at unit length but
        for the rows `as_is` (m,), which it has as they are. rescore: so many candidates of the base for each row wanted
        are scored again by them (index.build.IndexReport). Raises InputError when their shape is not the base's.
        """
        if vectors is not None and vectors.shape != (base.ntotal, base.d):
            raise InputError(f"vectors: are of shape {vectors.shape}; the index has {(base.ntotal, base.d)}")
        built = BuiltIndex.of(base, vectors, as_is, rescore)
        return cls(Layer(built, RowMask.of_all(base.ntotal)), Delta.empty(base.d))

    def __len__(self) -> int:
        """How many vectors can be found."""
        return self.base.shown.count + len(self.delta)

    @property
    def delta_rows(self) -> NDArray[np.int64]:
        """Rows (m,) of the delta's vectors."""
        return self.delta.rows()

    @property
    def delta_vectors(self) -> NDArray[np.float32]:
        """The delta's vectors, (m, dim)."""
        return self.delta.vectors()

    def hide(self, rows: Iterable[int]) -> LayeredIndex:
        """Without these rows, wherever they are."""
        gone = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), dtype=np.int64)
        return LayeredIndex(self.base.without(gone), self.delta.without(gone)) if len(gone) else self

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> LayeredIndex:
        """With these vectors (m, dim) under these rows (m,), at least 0; a row that was there before is replaced.

        Of a row that is named twice the last vector counts. Raises InputError when shapes differ or a row is below 0.
        """
        dim = self.base.built.index.d
        if vectors.shape != (len(rows), dim):
            raise InputError(f"vectors: are of shape {vectors.shape}; {len(rows)} rows of {dim} numbers are needed")
        if len(rows) and rows.min() < 0:
            raise InputError(f"rows: {int(rows.min())} is below 0")
        # Of the reversed rows the first of each is the last that was given.
        _, last = np.unique(rows[::-1], return_index=True)
        if len(last) < len(rows):
            kept = np.sort(len(rows) - 1 - last)
            rows, vectors = rows[kept], vectors[kept]
        rest = self.hide(rows)
        return replace(rest, delta=rest.delta.add(rows, vectors))

    def restore(self, rows: NDArray[np.int64]) -> LayeredIndex:
        """With these rows (m,) of the base as the base has them, whatever hid or replaced them.

        Raises InputError for a row that the base has not.
        """
        size = self.base.shown.size
        beyond = rows[(rows < 0) | (rows >= size)]
        if len(beyond):
            raise InputError(f"rows: {int(beyond[0])} is not in the base, whose rows are 0 to {size - 1}")
        return LayeredIndex(self.base.restored(rows), self.delta.without(rows)) if len(rows) else self

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None) -> Neighbours:
        """The k best rows of each query (n, dim): approximate in built indexes, exact in the tail of the delta.

        allowed: (m,) int64, ascending; only these rows are found, and as many of them as there are, however few. What
        is made of a read-only array is kept for the next search.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        found = self.delta.search(queries, k, allowed)
        if self.base.shown.count or not found:
            found.insert(0, self.base.search(queries, k, allowed))
        scores, rows = merged(found, k)
        missing = k - rows.shape[1]
        if missing > 0:
            rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        scores[rows < 0] = -np.inf
        return Neighbours(rows, scores)

    def wants_sealing(self) -> bool:
        """Whether enough was added for `sealed` to make searches faster."""
        stays_exact = self.base.built.exact and not self.delta.parts and self.delta.tail.shown.count < _EXACT_BELOW
        return self.delta.tail.shown.count >= _TAIL and not stays_exact

    def sealed(self, *, threads: int = 1) -> Sealed:
        """What `with_sealed` needs; takes seconds and changes nothing: for a thread beside readers and writers."""
        return seal(self.delta, threads=threads)

    def with_sealed(self, sealed: Sealed) -> LayeredIndex:
        """This view, as it is found by searches, with what was sealed of it or of one that it came of.

        The same view, where it came of another one or another sealing was applied between.
        """
        delta = apply(sealed, self.delta)
        return self if delta is self.delta else replace(self, delta=delta)
