"""The label table: id <-> row, text, fields. Rows are append-only; that of a removed label is never found again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from index.changes import LabelChange, PutLabel, RemoveLabel, labels_of
from index.errors import InputError
from index.facets import Facets, facet_keys, fields_of
from index.fields import Fields
from index.label_filter import LabelFilter
from index.packed import PackedStrings, open_array

MAX_ID_BYTES = 512
_RECENT = 1 << 16
# Of the rows that filters match: so many bytes are kept.
_MATCHED_BYTES = 1 << 26
_NO_ROWS = np.zeros(0, dtype=np.int64)
_FIELDS = "labels.fields"


@dataclass(frozen=True, slots=True)
class Label:
    """A label as the outside sees it; fields: those that it has in the corpus, or with which it was put since."""

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
    """The labels of a bundle, rows 0 to n - 1, opened by memory map; `order`: rows by the bytes of their ids.

    fields: of each label as `index.facets.fields_text` writes them, and facets: their postings; None without any.
    """

    ids: PackedStrings
    texts: PackedStrings
    order: NDArray[np.int64]
    fields: PackedStrings | None = None
    facets: Facets | None = None
    # Few labels are most of what is predicted: unpacking them again and again costs as much as ranking.
    _recent: dict[int, Label] = field(default_factory=dict, repr=False, compare=False)
    _matched: dict[LabelFilter, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def pack(cls, ids: list[str], texts: list[str], fields: PackedStrings | None = None) -> LabelTable:
        """fields: of each label as the table has them; None where no label has any."""
        packed = PackedStrings.pack(ids)
        facets = None if fields is None else Facets.pack(fields_of(text) for text in fields)
        return cls(packed, PackedStrings.pack(texts), packed.order(), fields, facets)

    @classmethod
    def open(cls, folder: Path) -> LabelTable:
        """Raises FileNotFoundError, or ValueError for a damaged file."""
        order = open_array(folder / "labels.order.npy")
        ids, texts = PackedStrings.open(folder, "labels.ids"), PackedStrings.open(folder, "labels.texts")
        if not (folder / f"{_FIELDS}.offsets.npy").exists():
            return cls(ids, texts, order)
        return cls(ids, texts, order, PackedStrings.open(folder, _FIELDS), Facets.open(folder))

    def save(self, folder: Path) -> None:
        self.ids.save(folder, "labels.ids")
        self.texts.save(folder, "labels.texts")
        np.save(folder / "labels.order.npy", self.order)
        if self.fields is not None and self.facets is not None:
            self.fields.save(folder, _FIELDS)
            self.facets.save(folder)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Label:
        label = self._recent.get(row)
        if label is None:
            if len(self._recent) >= _RECENT:
                self._recent.clear()
            fields = None if self.fields is None else fields_of(self.fields[row])
            label = self._recent[row] = Label(self.ids[row], self.texts[row], fields)
        return label

    def find_all(self, ids: Iterable[str]) -> dict[str, int]:
        """The rows of those of the ids that are there.

        Of many, each halves what is left to look through for all before and after it.
        """
        wanted = sorted((label.encode("utf-8", "surrogatepass"), label) for label in set(ids))
        found: dict[str, int] = {}
        parts = [(0, len(wanted), 0, len(self.order))]
        while parts:
            start, stop, first, last = parts.pop()
            if start == stop or first == last:
                continue
            middle = (start + stop) // 2
            key, label = wanted[middle]
            place = bisect_left(range(last), key, first, key=lambda i: self.ids.raw(int(self.order[i])))
            if place < last and self.ids.raw(row := int(self.order[place])) == key:
                found[label] = row
            parts += [(start, middle, first, place), (middle + 1, stop, place, last)]
        return found

    def matching(self, only: LabelFilter) -> NDArray[np.int64]:
        """The rows that a filter matches, ascending."""
        return _remembered(self._matched, only, self._match)

    def _match(self, only: LabelFilter) -> NDArray[np.int64]:
        if self.facets is None:
            return _NO_ROWS if only.names else np.arange(len(self))
        left = np.ones(len(self), dtype=np.bool_)
        for keys in only.names:
            having = np.zeros(len(self), dtype=np.bool_)
            for key in keys:
                having[self.facets.having(key)] = True
            left &= having
        return np.flatnonzero(left)


def _remembered(
    matched: dict[LabelFilter, NDArray[np.int64]], only: LabelFilter, match: Callable[[LabelFilter], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The rows that a filter matches, found once while there is room for them."""
    rows = matched.get(only)
    if rows is not None:
        return rows
    rows = match(only)
    rows.flags.writeable = False
    # A copy of the values: other threads remember theirs meanwhile.
    if sum(one.nbytes + 1024 for one in list(matched.values())) > _MATCHED_BYTES:
        matched.clear()
    matched[only] = rows
    return rows


@dataclass(frozen=True, slots=True)
class LiveLabels:
    """An immutable view: the bundle's table with labels added, edited and removed since; every change gives a new view.

    added: rows after the table's, as they were put last; edited: rows of the table that were put again; places: id ->
    row of what was added; removed: rows that are gone; facets: key -> rows of labels put since that have it. Old and
    new views share what is equal in them: a change costs what it changes.
    """

    table: LabelTable
    added: Map[int, Label] = field(default_factory=Map)
    places: Map[str, int] = field(default_factory=Map)
    edited: Map[int, Label] = field(default_factory=Map)
    removed: Map[int, bool] = field(default_factory=Map)
    facets: Map[str, Map[int, bool]] = field(default_factory=Map)
    _matched: dict[LabelFilter, NDArray[np.int64]] = field(init=False, default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        """How many labels there are now."""
        return self.rows - len(self.removed)

    @property
    def rows(self) -> int:
        """How many rows were ever given out."""
        return len(self.table) + len(self.added)

    def __getitem__(self, row: int) -> Label:
        if row >= len(self.table):
            return self.added[row]
        edited = self.edited.get(row)
        return self.table[row] if edited is None else edited

    def find(self, label: str) -> int | None:
        """The row of this id; None when there is no such label (any more)."""
        row = self.places.get(label)
        if row is None:
            row = self.table.ids.find(label, self.table.order)
        return None if row is None or row in self.removed else row

    def gone(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these rows (n,) is that of a removed label."""
        if not self.removed:
            return np.zeros(len(rows), dtype=np.bool_)
        distinct, places = np.unique(rows, return_inverse=True)
        found = np.fromiter((row in self.removed for row in distinct.tolist()), dtype=np.bool_, count=len(distinct))
        return found[places]

    def matching(self, only: LabelFilter) -> NDArray[np.int64]:
        """The rows of the live labels that a filter matches, ascending."""
        return _remembered(self._matched, only, self._match)

    def _match(self, only: LabelFilter) -> NDArray[np.int64]:
        before, since = self._unchanged(self.table.matching(only)), self._put_since(only)
        return np.sort(np.concatenate([before, since])) if len(since) else before

    def _unchanged(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the table's rows that are neither edited nor removed."""
        if len(rows) <= len(self.edited) + len(self.removed):
            kept = [row for row in rows.tolist() if row not in self.edited and row not in self.removed]
            return np.array(kept, dtype=np.int64)
        shown = np.ones(self.rows, dtype=np.bool_)
        for changed in (self.edited, self.removed):
            shown[np.fromiter(changed, dtype=np.int64, count=len(changed))] = False
        return rows[shown[rows]]

    def _put_since(self, only: LabelFilter) -> NDArray[np.int64]:
        if not only.names:
            live = {row for rows in (self.added, self.edited) for row in rows if row not in self.removed}
            return np.array(sorted(live), dtype=np.int64)
        found: set[int] | None = None
        for keys in only.names:
            having = {row for key in keys for row in self.facets.get(key, ())}
            found = having if found is None else found & having
        return np.array(sorted(found or ()), dtype=np.int64)

    def apply(self, changes: Sequence[LabelChange]) -> tuple[LiveLabels, list[tuple[int | None, ...]]]:
        """The view after these changes, and for each the rows of the labels that it names (`labels_of`), None for one
        that was not there.

        A put of a live id keeps its row; any other put takes a new one, even for an id that was there once.
        """
        draft = _Draft(self, changes)
        rows = [draft.apply(change) for change in changes]
        return draft.finish(), rows

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


class _Draft:
    """The next view while changes are applied to it, one after another."""

    def __init__(self, labels: LiveLabels, changes: Sequence[LabelChange]) -> None:
        self._table, self._base = labels.table, len(labels.table)
        self._rows = labels.rows
        self._added, self._places = labels.added.mutate(), labels.places.mutate()
        self._edited, self._removed = labels.edited.mutate(), labels.removed.mutate()
        self._facets = labels.facets
        # key -> row -> whether the label has it now.
        self._having: dict[str, dict[int, bool]] = {}
        self._found = self._table.find_all(label for change in changes for label in labels_of(change))

    def apply(self, change: LabelChange) -> tuple[int | None, ...]:
        match change:
            case PutLabel(id=name, text=text, fields=fields):
                return (self._put(Label(name, text, fields or None)),)
            case RemoveLabel(id=name):
                row = self._live(name)
                if row is not None:
                    self._has(row, False)
                    self._removed[row] = True
                return (row,)
        return tuple(self._live(name) for name in labels_of(change))

    def finish(self) -> LiveLabels:
        facets = self._facets.mutate()
        for key, rows in self._having.items():
            with facets.get(key, Map()).mutate() as having:
                for row, has in rows.items():
                    if has:
                        having[row] = True
                    else:
                        having.pop(row, None)
                left = having.finish()
            if left:
                facets[key] = left
            else:
                facets.pop(key, None)
        return LiveLabels(
            self._table,
            self._added.finish(),
            self._places.finish(),
            self._edited.finish(),
            self._removed.finish(),
            facets.finish(),
        )

    def _live(self, name: str) -> int | None:
        row: int | None = self._places.get(name)
        if row is None:
            row = self._found.get(name)
        return None if row is None or row in self._removed else row

    def _put(self, label: Label) -> int:
        row = self._live(label.id)
        if row is None:
            row = self._rows
            self._rows += 1
            self._places[label.id] = row
        else:
            self._has(row, False)
        (self._edited if row < self._base else self._added)[row] = label
        if label.fields:
            self._has(row, True)
        return row

    def _has(self, row: int, has: bool) -> None:
        """The label as it was put last has its keys, or has them no more."""
        label = (self._edited if row < self._base else self._added).get(row)
        if label is not None and label.fields:
            for key in facet_keys(label.fields):
                self._having.setdefault(key, {})[row] = has
