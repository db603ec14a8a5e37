"""The label table: id <-> row, text. Rows are append-only; a removed label keeps its row and is never found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.changes import LabelChange, RemoveLabel
from index.errors import InputError
from index.fields import Fields
from index.packed import PackedStrings, open_array

MAX_ID_BYTES = 512
_RECENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Label:
    """A label as the outside sees it; fields: those that a corpus was asked for, or with which it was put since."""

    id: str
    text: str
    fields: Fields | None = None


def check_id(value: str, name: str) -> str:
    """The id itself; `name` says whose it is.

    Raises InputError when it is blank, no valid Unicode, longer than 512 bytes of UTF-8, or has control characters.
    """
    if not value.strip():
        raise InputError(f"{name} is blank; give it one")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise InputError(f"{name} {value[:40]!r} has control characters; use printable ones")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(f"{name} {value[:40]!r} is not valid Unicode (a lone surrogate)") from error
    if size > MAX_ID_BYTES:
        raise InputError(f"{name} {value[:40]!r}… has {size} bytes; at most {MAX_ID_BYTES} are taken")
    return value


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The labels of a bundle, rows 0 to n - 1, opened by memory map; `order`: rows by the bytes of their ids."""

    ids: PackedStrings
    texts: PackedStrings
    order: NDArray[np.int64]
    # Few labels are most of what is predicted: unpacking them again and again costs as much as ranking.
    _recent: dict[int, Label] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def pack(cls, ids: list[str], texts: list[str]) -> LabelTable:
        packed = PackedStrings.pack(ids)
        return cls(packed, PackedStrings.pack(texts), packed.order())

    @classmethod
    def open(cls, folder: Path) -> LabelTable:
        order = open_array(folder / "labels.order.npy")
        return cls(PackedStrings.open(folder, "labels.ids"), PackedStrings.open(folder, "labels.texts"), order)

    def save(self, folder: Path) -> None:
        self.ids.save(folder, "labels.ids")
        self.texts.save(folder, "labels.texts")
        np.save(folder / "labels.order.npy", self.order)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Label:
        label = self._recent.get(row)
        if label is None:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            label = self._recent[row] = Label(self.ids[row], self.texts[row])
        return label


@dataclass(frozen=True, slots=True)
class LiveLabels:
    """An immutable view: the bundle's table with labels added, edited and removed since; every change gives a new view.

    added: rows after the table's, in order of arrival; edited: table or added rows as they were put again;
    places: id -> row of what was added; removed: rows that are gone.
    """

    table: LabelTable
    added: tuple[Label, ...] = ()
    places: Mapping[str, int] = field(default_factory=dict)
    edited: Mapping[int, Label] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        """How many labels there are now."""
        return self.rows - len(self.removed)

    @property
    def rows(self) -> int:
        """How many rows were ever given out."""
        return len(self.table) + len(self.added)

    def __getitem__(self, row: int) -> Label:
        edited = self.edited.get(row)
        if edited is not None:
            return edited
        base = len(self.table)
        return self.table[row] if row < base else self.added[row - base]

    def find(self, label: str) -> int | None:
        """The row of this id; None when there is no such label (any more)."""
        row = self.places.get(label)
        if row is None:
            row = self.table.ids.find(label, self.table.order)
        return None if row is None or row in self.removed else row

    def apply(self, changes: Sequence[LabelChange]) -> tuple[LiveLabels, list[int | None]]:
        """The view after these changes, and the row that each one met; None where a removed label was not there.

        A put of a live id keeps its row; any other put takes a new one, even for an id that was there once.
        """
        added, places = list(self.added), dict(self.places)
        edited, removed = dict(self.edited), set(self.removed)
        rows: list[int | None] = []
        for change in changes:
            row = places.get(change.id)
            if row is None:
                row = self.table.ids.find(change.id, self.table.order)
            live = row is not None and row not in removed
            if isinstance(change, RemoveLabel):
                if row is not None and live:
                    removed.add(row)
                rows.append(row if live else None)
                continue
            label = Label(change.id, change.text, change.fields)
            if row is not None and live:
                edited[row] = label
            else:
                row = len(self.table) + len(added)
                added.append(label)
                places[change.id] = row
            rows.append(row)
        return replace(self, added=tuple(added), places=places, edited=edited, removed=frozenset(removed)), rows

    def after(self, label: str | None) -> Iterator[tuple[int, Label]]:
        """Live labels with their rows, in row order, from behind the label `label` on (None: from the start)."""
        start = 0
        if label is not None:
            # The table's row first: a label that was removed and put again since must not skip all those between.
            row = self.table.ids.find(label, self.table.order)
            if row is None:
                row = self.places.get(label)
            if row is None:
                raise InputError(f"cursor {label!r}: names no label; begin again without a cursor")
            start = row + 1
        return ((row, self[row]) for row in range(start, self.rows) if row not in self.removed)
