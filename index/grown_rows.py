"""An array that grows by rows, of which older and newer views share what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST = 64


@dataclass(slots=True)
class _Store:
    """values: (room, dim), of which the first `used` belong to the longest view."""

    values: NDArray[np.float32]
    used: int


@dataclass(frozen=True, slots=True)
class GrownRows:
    """An immutable view of the first rows of a buffer, (len, dim) float32.

    Appending to the newest view writes behind its end, where no view looks; appending to an older one copies. Only one
    thread may append, any may read.
    """

    _store: _Store
    _length: int

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> GrownRows:
        """Of these rows (n, dim), which are not copied before something is appended."""
        return cls(_Store(values, len(values)), len(values))

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> NDArray[np.float32]:
        """(len, dim); not to be written to."""
        return self._store.values[: self._length]

    def append(self, more: NDArray[np.float32]) -> GrownRows:
        """A view with these rows (m, dim) after its own."""
        if not len(more):
            return self
        store, length = self._store, self._length + len(more)
        if store.used != self._length or length > len(store.values):
            room = np.empty((max(_LEAST, 2 * length), store.values.shape[1]), dtype=np.float32)
            room[: self._length] = self.values
            store = _Store(room, self._length)
        store.values[self._length : length] = more
        store.used = length
        return GrownRows(store, length)
