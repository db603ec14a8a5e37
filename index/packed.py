"""Many strings and many short integer lists as two flat arrays each, opened by memory map."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PackedStrings:
    """Strings as one run of UTF-8 bytes; `offsets` (n + 1,) int64 says where each begins."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def pack(cls, strings: Iterable[str]) -> PackedStrings:
        encoded = [text.encode("utf-8") for text in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @classmethod
    def open(cls, folder: Path, name: str) -> PackedStrings:
        return cls(open_array(folder / f"{name}.utf8.npy"), open_array(folder / f"{name}.offsets.npy"))

    def save(self, folder: Path, name: str) -> None:
        np.save(folder / f"{name}.utf8.npy", self.data)
        np.save(folder / f"{name}.offsets.npy", self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def raw(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def __getitem__(self, row: int) -> str:
        return self.raw(row).decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def order(self) -> NDArray[np.int64]:
        """Row numbers (n,) int64 in the order of the strings' bytes."""
        return np.array(sorted(range(len(self)), key=self.raw), dtype=np.int64)

    def find(self, text: str, order: NDArray[np.int64]) -> int | None:
        """The row of an equal string, by bisection over `order`; None when there is none."""
        # What is no valid Unicode (a command-line argument may be) equals nothing that was packed.
        wanted = text.encode("utf-8", "surrogatepass")
        place = bisect_left(range(len(order)), wanted, key=lambda i: self.raw(int(order[i])))
        if place == len(order):
            return None
        row = int(order[place])
        return row if self.raw(row) == wanted else None


@dataclass(frozen=True, slots=True)
class Lists:
    """Integer lists in CSR form: list i is `values[offsets[i]:offsets[i + 1]]`, int32; `offsets` (n + 1,) int64."""

    offsets: NDArray[np.int64]
    values: NDArray[np.int32]

    @classmethod
    def pack(cls, lists: Sequence[Sequence[int]]) -> Lists:
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in lists], out=offsets[1:])
        return cls(offsets, np.array([value for one in lists for value in one], dtype=np.int32))

    @classmethod
    def open(cls, folder: Path, name: str) -> Lists:
        return cls(open_array(folder / f"{name}.offsets.npy"), open_array(folder / f"{name}.values.npy"))

    def save(self, folder: Path, name: str) -> None:
        np.save(folder / f"{name}.offsets.npy", self.offsets)
        np.save(folder / f"{name}.values.npy", self.values)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.values[self.offsets[row] : self.offsets[row + 1]]
        return found


def spans(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The integers of all spans [start, start + length), one after another, int64 of length sum(lengths)."""
    before = np.cumsum(lengths) - lengths
    shift: NDArray[np.int64] = np.repeat(starts - before, lengths)
    return np.arange(int(lengths.sum()), dtype=np.int64) + shift


def open_array(path: Path) -> Any:
    """The array in a .npy file, by memory map; never unpickles."""
    # As a plain array over the mapped bytes: the memmap subclass makes every small slice several times slower.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
