"""Ids that a corpus takes: made from those of a source, unique and within the rules, and the labels by id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from index.errors import InputError
from index.fields import Fields
from index.labels import MAX_ID_BYTES, Label
from training.importing.source import Found, ListedLabel, Tally

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_HASH_CHARACTERS = 16


def without_surrogates(text: str, found: Found, place: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD, counted in `found`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        found.at(place)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_fields(fields: Fields | None, found: Found, place: str) -> Fields | None:
    """The fields with every lone surrogate in a string, or in a list of strings, replaced; None when there are none."""
    if not fields:
        return None

    def clean(value: object) -> object:
        if isinstance(value, str):
            return without_surrogates(value, found, place)
        return [clean(one) for one in value] if isinstance(value, list) else value

    return {name: clean(value) for name, value in fields.items()}


def clean_id(value: str, tally: Tally, place: str) -> str:
    """`value` as index.labels.check_id takes it, empty when nothing is left of it; counted when it changes.

    One that is too long ends in a hash of the whole, so that two of the same beginning stay two.
    """
    clean = _CONTROL.sub(" ", without_surrogates(value, tally.surrogates, place)).strip()
    encoded = clean.encode("utf-8")
    if len(encoded) > MAX_ID_BYTES:
        digest = hashlib.sha256(encoded).hexdigest()[:_HASH_CHARACTERS]
        clean = encoded[: MAX_ID_BYTES - _HASH_CHARACTERS - 1].decode("utf-8", "ignore").rstrip() + "#" + digest
    if clean != value:
        tally.changed_ids.at(place)
    return clean


class UniqueIds:
    """Gives every row an id that no other has: the source's own where it can, else its row number."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._given: set[str] = set()

    def give(self, own: str | None, row: int, place: str) -> str:
        """The id of row `row`, whose source calls it `own`."""
        wanted = (clean_id(own, self._tally, place) if own else "") or str(row)
        name = wanted
        if name in self._given:
            self._tally.repeated_ids.at(place)
            # The id before may be as long as an id can be.
            name = wanted.encode("utf-8")[: MAX_ID_BYTES // 2].decode("utf-8", "ignore") + f"#{row}"
            while name in self._given:
                name += "#"
        self._given.add(name)
        return name


class Labels:
    """The labels of one import in row order: those that the source lists, or those that its records name."""

    def __init__(self, tally: Tally, *, by_text: bool) -> None:
        self._tally = tally
        self._by_text: dict[str, str] | None = {} if by_text else None
        self._texts: dict[str, str] = {}
        self.ids: list[str] = []
        self.fixed = False
        self.without_text = 0

    def take(self, listed: Iterator[ListedLabel], *, numbered: bool) -> Iterator[Label]:
        """Take in the source's list, passing on each label to be written; no others are taken after.

        Texts are not kept. numbered: a label whose id was there before is still one of its own.
        """
        ids = UniqueIds(self._tally)
        for label in listed:
            name = None if label.id is None else clean_id(label.id, self._tally, label.place)
            if not numbered and name is not None and name in self._texts:
                self._tally.listed_twice.at(label.place)
                continue
            given = ids.give(name, len(self.ids), label.place)
            text = without_surrogates(label.text, self._tally.surrogates, label.place)
            text = text if text.strip() else ""
            self.ids.append(given)
            if not numbered:
                self._texts[given] = ""
            if self._by_text is not None and text:
                self._by_text.setdefault(text, given)
            self.without_text += not text
            yield Label(given, text, clean_fields(label.fields, self._tally.surrogates, label.place))
        self.fixed = True

    def numbered(self, number: int, place: str) -> str:
        """The id of the label in row `number`. Raises InputError when there is no such row."""
        if number >= len(self.ids):
            raise InputError(f"{place}: label {number} is out of range; there are {len(self.ids)} labels, from 0")
        return self.ids[number]

    def named(self, name: str, text: str, place: str) -> str | None:
        """The id of the label that the source calls `name`: new when records name the labels, else None if unlisted.

        text: what a new one, or one that had none, is given.
        """
        name = clean_id(name, self._tally, place)
        if self.fixed:
            return name if name in self._texts else None
        if not name:
            return None
        if name not in self._texts:
            self.ids.append(name)
        if not self._texts.get(name):
            self._texts[name] = text
        return name

    def by_text(self, text: str) -> str | None:
        """The id of the first listed label with this text; None when no list has it."""
        return None if self._by_text is None else self._by_text.get(text)

    def grown(self) -> Iterator[Label]:
        """The labels that records have named, in order of first appearance."""
        for name in self.ids:
            text = without_surrogates(self._texts[name], self._tally.surrogates, f"label {name!r}")
            self.without_text += not text
            yield Label(name, text)
