"""What a re-indexed bundle keeps of the changes that are in it, so that later ones are applied as without it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.fields import Fields
from index.packed import Lists, PackedStrings, open_array

_LABELS = "carried.labels"
_EXAMPLES = "carried.examples"


@dataclass(frozen=True, slots=True)
class CarriedLabels:
    """Labels that are otherwise than they were trained: put, or with examples from feedback. c of them.

    rows: (c,) int64, ascending. put: (c,) bool. trained: (c, dim) float32; where put, what training left of the label
    beside its text (zero for a label that training did not know), else its whole sum. given: (c, dim) float32, the
    vector that it was put with, zero without one.
    """

    rows: NDArray[np.int64]
    put: NDArray[np.bool_]
    trained: NDArray[np.float32]
    given: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CarriedExamples:
    """Examples that were added to labels and still count, in order of arrival. m of them.

    keys: what `example_key` makes of their texts and fields. vectors: (m, dim) float32, as the query tower gave them.
    right, wrong: the rows of the labels that they are, or are not, examples of.
    """

    keys: PackedStrings
    vectors: NDArray[np.float32]
    right: Lists
    wrong: Lists

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Carried:
    """The changed labels and the added examples of a bundle; an exported one has none of either."""

    labels: CarriedLabels
    examples: CarriedExamples

    @classmethod
    def none(cls, dim: int) -> Carried:
        nothing = np.zeros((0, dim), dtype=np.float32)
        return cls(
            CarriedLabels(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), nothing, nothing),
            CarriedExamples(PackedStrings.pack([]), nothing, Lists.pack([]), Lists.pack([])),
        )

    @classmethod
    def open(cls, folder: Path, dim: int) -> Carried:
        """What the bundle in `folder` carries, by memory map; none where it has no such files."""
        if not (folder / f"{_LABELS}.rows.npy").exists():
            return cls.none(dim)
        labels = [open_array(folder / f"{_LABELS}.{name}.npy") for name in ("rows", "put", "trained", "given")]
        return cls(
            CarriedLabels(*labels),
            CarriedExamples(
                PackedStrings.open(folder, f"{_EXAMPLES}.keys"),
                open_array(folder / f"{_EXAMPLES}.vectors.npy"),
                Lists.open(folder, f"{_EXAMPLES}.right"),
                Lists.open(folder, f"{_EXAMPLES}.wrong"),
            ),
        )

    def save(self, folder: Path) -> None:
        """Write the files that `open` reads; nothing where nothing is carried."""
        if not len(self.labels.rows) and not len(self.examples):
            return
        for name in ("rows", "put", "trained", "given"):
            np.save(folder / f"{_LABELS}.{name}.npy", getattr(self.labels, name))
        self.examples.keys.save(folder, f"{_EXAMPLES}.keys")
        np.save(folder / f"{_EXAMPLES}.vectors.npy", self.examples.vectors)
        self.examples.right.save(folder, f"{_EXAMPLES}.right")
        self.examples.wrong.save(folder, f"{_EXAMPLES}.wrong")

    def renumbered(self, places: NDArray[np.int64]) -> Carried:
        """The same under other label rows. places: (rows,) int64, the new row of each old one, -1 for one that is gone.

        New rows have to rise with the old ones. Examples keep their places, also those that are left without a label.
        """
        rows = places[self.labels.rows]
        kept = rows >= 0
        labels = CarriedLabels(rows[kept], self.labels.put[kept], self.labels.trained[kept], self.labels.given[kept])
        right, wrong = (renumbered(lists, places) for lists in (self.examples.right, self.examples.wrong))
        return Carried(labels, CarriedExamples(self.examples.keys, self.examples.vectors, right, wrong))


def renumbered(lists: Lists, places: NDArray[np.int64]) -> Lists:
    """Lists of label rows under the rows that `places` (rows,) gives them, without those that it says -1 of."""
    values = places[lists.values]
    kept = values >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return Lists(before[lists.offsets].astype(np.int64), values[kept].astype(np.int32))


def example_key(text: str, fields: Fields | None) -> str:
    """One string for a text with its fields, equal for equal ones; fields that say nothing are as none."""
    return json.dumps([text, dict(fields) if fields else None], ensure_ascii=False, sort_keys=True)
