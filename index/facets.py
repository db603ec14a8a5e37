"""What labels can be filtered by: the values of their fields as keys, and which labels of a bundle have which key."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import InputError
from index.fields import MOST_VALUES, Fields, scalar_text, shown_name
from index.packed import Lists, PackedStrings

_KEYS, _ROWS = "facets.keys", "facets.rows"
# A longer value is known by its digest: nobody lists them, and a text field would be stored twice.
_MOST_CHARACTERS = 200
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_quoted = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Facets:
    """Postings: the rows (ascending) of the labels that have a key; keys in the order of their bytes."""

    keys: PackedStrings
    rows: Lists

    @classmethod
    def pack(cls, labels: Iterable[Fields | None]) -> Facets:
        """Of the fields of labels in row order; values that nobody can filter by are passed over."""
        numbers: dict[str, int] = {}
        found, rows = array("q"), array("i")
        for row, fields in enumerate(labels):
            for key in facet_keys(fields):
                found.append(numbers.setdefault(key, len(numbers)))
                rows.append(row)
        keys = sorted(numbers, key=str.encode)
        place = np.empty(len(keys), dtype=np.int64)
        place[[numbers[key] for key in keys]] = np.arange(len(keys))
        of = place[np.array(found, dtype=np.int64)]
        offsets = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum(np.bincount(of, minlength=len(keys)), out=offsets[1:])
        order = np.argsort(of, kind="stable")
        return cls(PackedStrings.pack(keys), Lists(offsets, np.array(rows, dtype=np.int32)[order]))

    @classmethod
    def open(cls, folder: Path) -> Facets:
        return cls(PackedStrings.open(folder, _KEYS), Lists.open(folder, _ROWS))

    def save(self, folder: Path) -> None:
        self.keys.save(folder, _KEYS)
        self.rows.save(folder, _ROWS)

    def having(self, key: str) -> NDArray[np.int32]:
        """The rows of the labels that have this key, ascending; none where no label has it."""
        wanted = key.encode()
        place = bisect_left(range(len(self.keys)), wanted, key=self.keys.raw)
        if place == len(self.keys) or self.keys.raw(place) != wanted:
            return np.zeros(0, dtype=np.int32)
        return self.rows[place]


def facet_keys(fields: Fields | None) -> list[str]:
    """The key of each value of a label's fields, each once; none of a field that `check_facet` would not take."""
    return list(dict.fromkeys(key for name, value in (fields or {}).items() for key in _passed(name, value)))


def filterable(fields: Fields | None) -> Fields | None:
    """Those of the fields that `check_facet` takes and that say something; None when there are none."""
    return {name: value for name, value in (fields or {}).items() if _passed(name, value)} or None


def check_facet(name: str, value: object) -> list[str]:
    """The keys of a field's value: of each where it is a list, none where it is null.

    1, true and "1" are three values, 1 and 1.0 one. Raises InputError naming the field for a blank name, and for what
    is neither a string, a finite number, true or false, nor a list of at most 1,000 of these.
    """
    if not name.strip():
        raise InputError(f"field {shown_name(name)} has no name")
    if value is None:
        return []
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(values) > MOST_VALUES:
        raise InputError(f"field {shown_name(name)} has {len(values)} values; at most {MOST_VALUES} are taken")
    return [facet_key(name, one) for one in values]


def facet_key(name: str, value: object) -> str:
    """One string for a field with one value, equal for equal ones. Raises InputError as `check_facet` does."""
    text = _scalar(name, value)
    if len(text) > _MOST_CHARACTERS:
        text = "#" + hashlib.sha256(text.encode()).hexdigest()
    # Of all that may follow, neither JSON nor a digest has a NUL: what is before the last one is the name.
    return f"{name}\0{text}"


def fields_text(fields: Fields | None) -> str:
    """How a bundle stores the fields of a label: as JSON; empty for none."""
    return _compact(dict(fields)) if fields else ""


def fields_of(text: str) -> Fields | None:
    """The fields that `fields_text` wrote."""
    found: dict[str, object] | None = json.loads(text) if text else None
    return found


def _passed(name: str, value: object) -> list[str]:
    try:
        return check_facet(name, value)
    except InputError:
        return []


def _scalar(name: str, value: object) -> str:
    """The value as JSON has it, a whole number without a point."""
    return _quoted(_valid(name, value)) if isinstance(value, str) else scalar_text(name, value)


def _valid(name: str, value: str) -> str:
    if not (value.isascii() and name.isascii()):
        try:
            (name + value).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"field {shown_name(name)} is not valid Unicode (a lone surrogate)") from error
    return value
