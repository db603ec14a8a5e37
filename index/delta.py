"""Vectors added since an index was built: the newest as they are, earlier ones sealed into graphs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from index.layer import Layer
from index.masked_search import Found, merged
from index.row_mask import RowMask

_ROOM = 256


class Arrivals:
    """Numbers that no two vectors of the views which share it have in common, in order of arrival."""

    def __init__(self) -> None:
        self._next, self._lock = 0, Lock()

    def take(self, count: int) -> NDArray[np.int64]:
        with self._lock:
            first = self._next
            self._next += count
        return np.arange(first, first + count)


class _Buffer:
    """Room for vectors, filled from the front and shared by all views that know its first so many.

    What was written is never written again: a view reads its own part while another one appends behind it.
    """

    def __init__(self, room: int, dim: int) -> None:
        self.rows = np.empty(room, dtype=np.int64)
        self.arrivals = np.empty(room, dtype=np.int64)
        self.vectors = np.empty((room, dim), dtype=np.float32)
        self.used, self.lock = 0, Lock()

    def claim(self, start: int, stop: int) -> bool:
        """Whether the places from start to stop are the caller's to write: not where another view has been first."""
        with self.lock:
            if self.used != start or stop > len(self.rows):
                return False
            self.used = stop
            return True

    def write(
        self, start: int, rows: NDArray[np.int64], arrivals: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> None:
        stop = start + len(rows)
        self.rows[start:stop], self.arrivals[start:stop], self.vectors[start:stop] = rows, arrivals, vectors


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Immutable view of the first `shown.size` vectors of a buffer, searched exactly.

    highest: no row above it was ever here, so that new rows need not be looked for. line: the same object in all views
    that came of one another.
    """

    shown: RowMask
    highest: int
    line: Arrivals = field(repr=False)
    _buffer: _Buffer = field(repr=False)

    @classmethod
    def empty(cls, dim: int, arrivals: Arrivals) -> Tail:
        return cls(RowMask.of_all(0), -1, arrivals, _Buffer(0, dim))

    def without(self, rows: NDArray[np.int64]) -> Tail:
        """Less these rows (m,) int64."""
        known = rows[rows <= self.highest]
        if not len(known) or not self.shown.count:
            return self
        here = self._buffer.rows[: self.shown.size]
        shown = self.shown.without(np.flatnonzero(here == known[0] if len(known) == 1 else np.isin(here, known)))
        return self if shown is self.shown else replace(self, shown=shown)

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> Tail:
        """With these (m, dim) after the others; rows (m,): different ones, of which none is shown here."""
        if not len(rows):
            return self
        start, shown, buffer = self.shown.size, self.shown, self._buffer
        if not buffer.claim(start, start + len(rows)):
            # Full, or a view that came of this one has written there: this one goes on in a buffer of its own.
            kept = shown.rows() if 2 * shown.count < shown.size else np.arange(start)
            shown = RowMask.of_all(len(kept)) if len(kept) < start else shown
            start = len(kept)
            buffer = _Buffer(max(_ROOM, 2 * (start + len(rows))), vectors.shape[1])
            buffer.write(0, self._buffer.rows[kept], self._buffer.arrivals[kept], self._buffer.vectors[kept])
            buffer.used = start + len(rows)
        buffer.write(start, rows, self.line.take(len(rows)), vectors)
        return Tail(shown.grown(len(rows)), max(self.highest, int(rows.max())), self.line, buffer)

    def live(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Rows, arrivals and vectors of what is shown, in order of arrival."""
        # Without a copy where everything is.
        here = slice(self.shown.size) if self.shown.bits is None else self.shown.rows()
        return self._buffer.rows[here], self._buffer.arrivals[here], self._buffer.vectors[here]

    def later_than(self, arrivals: NDArray[np.int64]) -> Tail:
        """Without those of these arrivals, in a buffer of its own."""
        rows, arrived, vectors = self.live()
        rest = ~np.isin(arrived, arrivals)
        tail = Tail.empty(vectors.shape[1], self.line)
        if not rest.any():
            return tail
        count = int(np.count_nonzero(rest))
        buffer = _Buffer(max(_ROOM, 2 * count), vectors.shape[1])
        buffer.write(0, rows[rest], arrived[rest], vectors[rest])
        buffer.used = count
        return Tail(RowMask.of_all(count), int(rows[rest].max()), self.line, buffer)

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None) -> Found:
        """Scores and rows (n, up to k), best first; of `allowed` (m,), ascending, alone."""
        size, shown = self.shown.size, self.shown
        rows, vectors = self._buffer.rows[:size], self._buffer.vectors[:size]
        if allowed is not None and size:
            shown = shown.both(RowMask.of(_is_among(rows, allowed)))
        if 2 * shown.count < size:
            # Fetching these is less work than comparing all.
            kept = shown.rows()
            rows, vectors, shown = rows[kept], vectors[kept], RowMask.of_all(len(kept))
        scores = queries @ vectors.T
        rows = np.broadcast_to(rows, scores.shape)
        if shown.bits is not None:
            hidden = ~shown.flags()
            scores[:, hidden] = -np.inf
            rows = np.where(hidden, -1, rows)
        return merged([(scores, rows)], min(k, shown.count))


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """Immutable: sealed parts, and the tail of what came after them. A row counts in one of them at most."""

    parts: tuple[Layer, ...]
    tail: Tail

    @classmethod
    def empty(cls, dim: int) -> Delta:
        return cls((), Tail.empty(dim, Arrivals()))

    def __len__(self) -> int:
        return self.tail.shown.count + sum(part.shown.count for part in self.parts)

    def without(self, rows: NDArray[np.int64]) -> Delta:
        """Less these rows (m,) int64."""
        return Delta(tuple(part.without(rows) for part in self.parts), self.tail.without(rows))

    def add(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> Delta:
        """With these (m, dim); rows (m,): different ones, of which none counts here."""
        return Delta(self.parts, self.tail.add(rows, vectors))

    def search(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None) -> list[Found]:
        """What each part and the tail find."""
        layers: tuple[Layer | Tail, ...] = (*self.parts, self.tail)
        return [layer.search(queries, k, allowed) for layer in layers if layer.shown.count]

    def rows(self) -> NDArray[np.int64]:
        """All that count, in the order of `vectors`."""
        return np.concatenate([*(part.live() for part in self.parts), self.tail.live()[0]])

    def vectors(self) -> NDArray[np.float32]:
        """(len, dim)."""
        found = chain((_vectors(part, part.shown.rows()) for part in self.parts), [self.tail.live()[2]])
        return np.concatenate(list(found))


def _vectors(part: Layer, places: NDArray[np.int64]) -> NDArray[np.float32]:
    assert part.built.fetch is not None  # noqa: S101 - sealed parts keep their vectors
    return part.built.fetch(places)


def _is_among(rows: NDArray[np.int64], allowed: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(allowed):
        return np.zeros(len(rows), dtype=np.bool_)
    at = np.minimum(np.searchsorted(allowed, rows), len(allowed) - 1)
    found: NDArray[np.bool_] = allowed[at] == rows
    return found
