"""A built index, vectors added since, and rows that count no more, searched as one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import faiss
import numpy as np
from numpy.typing import NDArray

# With a smaller share of its rows shown, a graph index is searched exactly.
_SPARSE = 0.5


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For each of n queries its k best rows, best first: `rows` (n, k) int64, `scores` (n, k) float32.

    Where fewer than k rows exist, the rest are row -1 with score -inf.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayeredIndex:
    """An immutable view: `base` (rows 0 to ntotal - 1) without the `hidden` rows, and a delta of later vectors.

    Every change gives a new view and leaves the old one as it was, so that readers never wait for writers.
    hidden: (base.ntotal,) bool. delta_rows: (m,) int64; delta_vectors: (m, dim) float32; exact search over these.
    """

    base: faiss.Index
    hidden: NDArray[np.bool_]
    delta_rows: NDArray[np.int64]
    delta_vectors: NDArray[np.float32]
    # FAISS reads this bitmap in place: it has to live as long as the view.
    _shown_bits: NDArray[np.uint8] | None = field(default=None, repr=False)
    _hidden_count: int = 0

    @classmethod
    def over(cls, base: faiss.Index) -> LayeredIndex:
        empty = np.zeros((0, base.d), dtype=np.float32)
        return cls(base, np.zeros(base.ntotal, dtype=bool), np.zeros(0, dtype=np.int64), empty)

    def __len__(self) -> int:
        """How many vectors can be found."""
        return int(self.base.ntotal) - self._hidden_count + len(self.delta_rows)

    def hide(self, rows: Iterable[int]) -> LayeredIndex:
        """Without these rows, wherever they are."""
        gone = np.fromiter(rows, dtype=np.int64)
        if not len(gone):
            return self
        hidden, bits, count = self.hidden, self._shown_bits, self._hidden_count
        inside = gone[gone < self.base.ntotal]
        if len(inside):
            hidden = hidden.copy()
            hidden[inside] = True
            bits, count = np.packbits(~hidden, bitorder="little"), int(hidden.sum())
        kept = ~np.isin(self.delta_rows, gone)
        delta_rows, delta_vectors = self.delta_rows, self.delta_vectors
        if not kept.all():
            delta_rows, delta_vectors = delta_rows[kept], delta_vectors[kept]
        return LayeredIndex(self.base, hidden, delta_rows, delta_vectors, bits, count)

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> LayeredIndex:
        """With these vectors (m, dim) under these rows; a row that was there before is replaced."""
        rest = self.hide(rows.tolist())
        return replace(
            rest,
            delta_rows=np.concatenate([rest.delta_rows, rows]),
            delta_vectors=np.concatenate([rest.delta_vectors, vectors]),
        )

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        """The k best rows of each query (n, dim): approximate in the base, exact in the delta."""
        scores, rows = self._search_base(queries, min(k, self.base.ntotal))
        if len(self.delta_rows):
            scores = np.concatenate([scores, queries @ self.delta_vectors.T], axis=1)
            rows = np.concatenate(
                [rows, np.broadcast_to(self.delta_rows, (len(queries), len(self.delta_rows)))], axis=1
            )
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
        missing = k - rows.shape[1]
        if missing > 0:
            rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        scores[rows < 0] = -np.inf
        return Neighbours(rows, scores)

    def _search_base(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k < 1:
            return np.zeros((len(queries), 0), dtype=np.float32), np.zeros((len(queries), 0), dtype=np.int64)
        shown = None if self._shown_bits is None else faiss.IDSelectorBitmap(self._shown_bits)
        share = 1.0 - self._hidden_count / self.base.ntotal
        if hasattr(self.base, "hnsw") and share > _SPARSE:
            # A beam narrower than k cannot return k rows, and hidden rows take up places in it.
            effort = int(max(self.base.hnsw.efSearch, k) / share)
            parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=shown)
            scores, rows = self.base.search(queries, k, params=parameters)
        else:
            # With few rows left a graph's beam may miss them all; its stored vectors are searched one by one.
            exact = getattr(self.base, "storage", self.base)
            scores, rows = exact.search(queries, k, params=faiss.SearchParameters(sel=shown))
        return np.asarray(scores, dtype=np.float32), np.asarray(rows, dtype=np.int64)
