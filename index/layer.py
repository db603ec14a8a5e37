"""One built index in the layered index: which rows its vectors belong to, and which of them still count."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from index.masked_search import BuiltIndex, Found
from index.row_mask import MaskCache, RowMask


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of an index' places: `of_place` (ntotal,) int64; `sorted` (m,) int64 ascending, each once, and `places`
    (m,) int64 beside it for those that counted when the index was made."""

    of_place: NDArray[np.int64]
    sorted: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, of_place: NDArray[np.int64], counting: NDArray[np.int64]) -> Rows:
        """counting: places (m,) of different rows."""
        order = np.argsort(of_place[counting], kind="stable")
        return cls(of_place, of_place[counting][order], counting[order])

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of those of these rows (m,) that are here."""
        if not len(self.sorted):
            return np.zeros(0, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.sorted, rows), len(self.sorted) - 1)
        found: NDArray[np.int64] = self.places[at[self.sorted[at] == rows]]
        return found

    def among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for ascending rows, that may be many more than are here."""
        first, last = np.searchsorted(rows, self.sorted[[0, -1]]) if len(self.sorted) else (0, 0)
        near = rows[first : last + 1]
        if len(near) < len(self.sorted) or not len(near):
            return self.find(near)
        at = np.minimum(np.searchsorted(near, self.sorted), len(near) - 1)
        found: NDArray[np.int64] = self.places[near[at] == self.sorted]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Immutable. shown: over places; rows: None where a place's row is its number."""

    built: BuiltIndex
    shown: RowMask
    rows: Rows | None = None
    _masks: MaskCache = field(default_factory=MaskCache, repr=False)

    def without(self, rows: NDArray[np.int64]) -> Layer:
        """Less these rows (m,) int64, in any order."""
        shown = self.shown.without(
            rows[(rows >= 0) & (rows < self.shown.size)] if self.rows is None else self.rows.find(rows)
        )
        return self if shown is self.shown else replace(self, shown=shown)

    def restored(self, places: NDArray[np.int64]) -> Layer:
        """With these places (m,), all in the index, shown."""
        shown = self.shown.including(places)
        return self if shown is self.shown else replace(self, shown=shown)

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None) -> Found:
        """Scores and rows (n, up to k), best first, of those that count; of `allowed` (m,), ascending, alone."""
        if allowed is None:
            scores, places = self.built.search(queries, k, self.shown)
        else:
            scores, places = self._search_allowed(queries, k, allowed)
        return scores, places if self.rows is None else self.rows.of_place[places]

    def live(self) -> NDArray[np.int64]:
        """Rows that count, (m,), in order of place."""
        places = self.shown.rows()
        return places if self.rows is None else self.rows.of_place[places]

    def _search_allowed(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64]) -> Found:
        if self.rows is None:
            first, last = np.searchsorted(allowed, (0, self.shown.size))
            most = int(last - first)
        else:
            most = min(len(allowed), len(self.rows.sorted))
        if self.built.few(most, k):
            places = self._allowed_places(allowed)
            return self.built.best_of(queries, k, places[self.shown.has(places)])
        mask = self._masks.of(allowed, lambda rows: RowMask.only(self.shown.size, self._allowed_places(rows)))
        return self.built.search(queries, k, self.shown.both(mask))

    def _allowed_places(self, allowed: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.rows is not None:
            return self.rows.among(allowed)
        first, last = np.searchsorted(allowed, (0, self.shown.size))
        return allowed[first:last]
