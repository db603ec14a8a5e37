"""The features of texts and fields as table rows in bags, and long sequences of them in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.packed import spans


@dataclass(frozen=True, slots=True)
class Sequences:
    """One history field of n texts: text i has rows `rows[offsets[i]:offsets[i + 1]]` (int32), oldest first."""

    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def take(self, texts: NDArray[np.int64]) -> Sequences:
        """Those of the given texts, in that order."""
        lengths = self.lengths[texts]
        return Sequences(offsets_of(lengths), self.rows[spans(self.offsets[texts], lengths)])

    def padded(self, length: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows and a mask of 1 and 0, both (n, length), filled up after the newest with row 0 of mask 0."""
        filled = np.arange(length) < self.lengths[:, None]
        rows = np.zeros((len(self), length), dtype=np.int32)
        rows[filled] = self.rows
        return rows, filled.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Bags:
    """The features of n texts, each in one bag or in `slots` of them.

    Bag s of text i has rows `rows[offsets[i * slots + s]:offsets[i * slots + s + 1]]` (int32, ascending, no repeats).
    weights: float32 beside `rows`, 1 + ln(count) of the feature in its text. offsets: (n * slots + 1,) int64.
    sequences: of each history field. unseen: (n,) int32, values of each text of which training never met
    their rows; None where that is not looked at.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    slots: int = 1
    sequences: tuple[Sequences, ...] = ()
    unseen: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return (len(self.offsets) - 1) // self.slots

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each text over all its bags, (n,); of its longest sequence where that is more."""
        own = np.diff(self.offsets[:: self.slots])
        for sequence in self.sequences:
            own = np.maximum(own, sequence.lengths)
        return own

    def take(self, texts: NDArray[np.int64]) -> Bags:
        """The bags of the given texts, in that order."""
        starts = self.offsets[:: self.slots]
        where = spans(starts[texts], np.diff(starts)[texts])
        bags = texts if self.slots == 1 else (texts[:, None] * self.slots + np.arange(self.slots)).ravel()
        return Bags(
            offsets_of(np.diff(self.offsets)[bags]),
            self.rows[where],
            self.weights[where],
            self.slots,
            tuple(sequence.take(texts) for sequence in self.sequences),
            None if self.unseen is None else self.unseen[texts],
        )

    def padded(self, length: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows (n, length) and weights, filled up with row 0 of weight 0.

        Weights are (n, length) where there is one bag, else (n, slots, length): those of a text's rows in each bag,
        0 in the others, so that their product with the looked-up rows is the sums of all bags.
        """
        lengths = np.diff(self.offsets[:: self.slots])
        rows = np.zeros((len(self), length), dtype=np.int32)
        weights = np.zeros((len(self), length), dtype=np.float32)
        filled = np.arange(length) < lengths[:, None]
        rows[filled] = self.rows
        weights[filled] = self.weights
        if self.slots == 1:
            return rows, weights
        slot = np.zeros((len(self), length), dtype=np.int64)
        slot[filled] = np.repeat(np.tile(np.arange(self.slots), len(self)), np.diff(self.offsets))
        return rows, np.where(slot[:, None, :] == np.arange(self.slots)[:, None], weights[:, None, :], np.float32(0))


def stack_bags(first: Bags, *others: Bags) -> Bags:
    """The texts of all parts, which are of one specification, one after another."""
    parts = (first, *others)
    unseen = [part.unseen for part in parts if part.unseen is not None]
    return Bags(
        offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.weights for part in parts]),
        first.slots,
        tuple(
            Sequences(
                offsets_of(np.concatenate([one.lengths for one in same])), np.concatenate([one.rows for one in same])
            )
            for same in zip(*(part.sequences for part in parts), strict=True)
        ),
        np.concatenate(unseen) if len(unseen) == len(parts) else None,
    )


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where lists of these lengths begin when they stand one after another, and where the last ends, (n + 1,) int64."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
