"""Users' interactions with items over time: a record for each, which asks for the item from those before it."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.delimited import read_columns, read_header
from training.importing.field_columns import FieldColumn, field_columns, fields_of
from training.importing.identifiers import Labels, clean_id
from training.importing.inputs import InputFile, open_text
from training.importing.place import Place
from training.importing.source import ImportOptions, ListedLabel, Row, Source, Tally

NAME = "interactions"
LOOKED_FOR = "interactions.csv or ratings.csv or the like, with --user-column, --item-column or --items"

_MOST_HISTORY = 10_000
_FILES = ("interactions.csv", "interactions.tsv", "ratings.csv", "ratings.tsv")
_ITEM_FILES = ("items.csv", "items.tsv", "movies.csv", "movies.tsv")
# What the columns are commonly called, in small letters and digits alone.
_USER = ("user", "userid", "uid")
_ITEM = ("item", "itemid", "iid", "movieid", "productid", "asin", "isbn")
_TIME = ("time", "timestamp", "datetime", "date")
_RATING = ("rating", "score", "stars")
_TITLE = ("title", "name", "text", "label")
_OWN_FIELD = "item"


def settings(options: ImportOptions) -> list[str]:
    """The options given that only interactions have."""
    standard = ImportOptions()
    names = ("items", "user_column", "item_column", "time_column", "rating_column", "min_rating", "label_text_column")
    changed = [name for name in (*names, "history", "per_user") if getattr(options, name) != getattr(standard, name)]
    return ["--" + name.replace("_", "-") for name in changed]


def matches(place: Place, options: ImportOptions) -> bool:
    """Whether the caller has named what only interactions have."""
    return bool(settings(options))


def open_source(place: Place, options: ImportOptions) -> Source:
    """Of every user's interactions in order of time (of equal times as in the file) the last is for test, the one
    before it for dev, the earlier ones from the second on for train: leave-one-out, as in Kang and McAuley (2018).

    A record has the field `history`, the items before its own from the oldest to the newest, and `user`; its label is
    its item. Raises InputError for a missing file or column, and for settings out of range.
    """
    if not 1 <= options.history <= _MOST_HISTORY:
        raise InputError(f"--history: must be 1 to {_MOST_HISTORY}, is {options.history}")
    if options.per_user is not None and options.per_user < 1:
        raise InputError(f"--per-user: must be 1 or more, is {options.per_user}")
    path = place.file or place.find(_FILES)
    if path is None:
        raise InputError(f"{place.path}: has no interactions; looked for {', '.join(_FILES)}, plain or as .gz")
    file = open_text(path, options.encoding)
    header = read_header(file, quotes=options.quotes)
    columns = [
        _column(file, header, options.user_column, _USER, "--user-column"),
        _column(file, header, options.item_column, _ITEM, "--item-column"),
        _column(file, header, options.time_column, _TIME, "--time-column"),
    ]
    if options.min_rating is not None:
        columns.append(_column(file, header, options.rating_column, _RATING, "--rating-column"))
    log = cache(partial(_read_log, file, columns, options))
    items = _open_items(place, options)
    splits = {split: partial(_rows, log, str(path), split, options) for split in SPLITS}
    files = (file,) if items is None else (file, items.file)
    note = f"the test record of a user is the last interaction; a history has at most {options.history} items"
    return Source(NAME, files, splits, partial(_labels, log, str(path), items, options), notes=(note,))


@dataclass(frozen=True, slots=True)
class _Items:
    """The table of items: id, the text's column where it has one, and the columns of fields."""

    file: InputFile
    id: str
    text: str | None
    fields: tuple[FieldColumn, ...]


def _open_items(place: Place, options: ImportOptions) -> _Items | None:
    path = options.items or (None if place.file else place.find(_ITEM_FILES))
    fields = field_columns(options, taken=(_OWN_FIELD,))
    if path is None:
        if fields or options.label_text_column is not None:
            raise InputError("--items: give the table that has the columns of the items")
        return None
    file = open_text(path, options.encoding)
    header = read_header(file, quotes=options.quotes)
    given = options.item_column if options.item_column in header else None
    own = _column(file, header, given, (*_ITEM, "id"), "--item-column")
    texts = [name for known in _TITLE for name in header if _plain(name) == known and name != own]
    return _Items(file, own, options.label_text_column or next(iter(texts), None), fields)


def _column(file: InputFile, header: Sequence[str], given: str | None, known: Collection[str], option: str) -> str:
    """The column that was given, else the only one of a known name."""
    if given is not None:
        return given
    found = [name for name in header if _plain(name) in known]
    if len(found) == 1:
        return found[0]
    has = f"has {' and '.join(found)}" if found else f"has only {', '.join(header) or 'no columns'}"
    raise InputError(f"{file.path}: {has}; name the column with {option}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True, slots=True)
class _Log:
    """users, items: ids by number, in the order of the file; what: (interactions,) items, by user, then by time;
    starts: (users + 1,) where each user's begin. tally: what was met on the way.
    """

    users: list[str]
    items: list[str]
    what: NDArray[np.int64]
    starts: NDArray[np.int64]
    tally: Tally

    def of(self, user: int) -> list[str]:
        """The items of a user, oldest first."""
        return [self.items[item] for item in self.what[self.starts[user] : self.starts[user + 1]].tolist()]


def _read_log(file: InputFile, columns: Sequence[str], options: ImportOptions) -> _Log:
    tally = Tally()
    users, items, clock = _Ids(tally, columns[0]), _Ids(tally, columns[1]), _Clock(columns[2])
    who, what, when = array("q"), array("q"), array("d")
    for place, cells in read_columns(file, columns, quotes=options.quotes):
        if options.min_rating is not None and _number(cells[3], place, columns[3]) < options.min_rating:
            tally.low_ratings.at(place)
            continue
        who.append(users.number(cells[0], place))
        what.append(items.number(cells[1], place))
        when.append(clock.seconds(cells[2], place))
    # Stable: of equal times the file's order stays.
    order = np.lexsort((np.array(when), np.array(who)))
    counts = np.bincount(np.array(who, dtype=np.int64), minlength=len(users.names))
    for user in np.flatnonzero(counts == 1).tolist():
        tally.lone_items.at(_user_place(str(file.path), users.names[user]))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return _Log(users.names, items.names, np.array(what, dtype=np.int64)[order], starts, tally)


class _Ids:
    """Numbers the ids in a column by first appearance."""

    def __init__(self, tally: Tally, column: str) -> None:
        self._tally, self._column = tally, column
        self._cells: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self.names: list[str] = []

    def number(self, cell: str, place: str) -> int:
        """The number of the id in a cell. Raises InputError when it has none."""
        known = self._cells.get(cell)
        if known is not None:
            return known
        name = _id(cell, self._tally, place, self._column)
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        self._cells[cell] = number
        return number


class _Clock:
    """Reads the times of a column: all numbers, or all dates."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._numbers: bool | None = None

    def seconds(self, cell: str, place: str) -> float:
        """The number itself, or the date's seconds since 1970. Raises InputError for neither, or for the other kind."""
        value = _finite(cell)
        number = value is not None
        if value is None:
            try:
                date = datetime.fromisoformat(cell.strip())
            except ValueError as error:
                raise InputError(
                    f"{place}: {cell[:40]!r} in column {self._column!r} is no time; give numbers or dates such as "
                    "2024-12-31 or 2024-12-31T23:59:59"
                ) from error
            value = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        if self._numbers is None:
            self._numbers = number
        if number != self._numbers:
            raise InputError(f"{place}: column {self._column!r} has numbers and dates; give all times in one form")
        return value


def _labels(
    read_log: Callable[[], _Log], path: str, items: _Items | None, options: ImportOptions
) -> Iterator[ListedLabel]:
    """The items of the table in its order, then those that only interactions have."""
    log = read_log()
    listed = set()
    if items is not None:
        texts = [] if items.text is None else [items.text]
        columns = [items.id, *texts, *(field.column for field in items.fields)]
        for place, cells in read_columns(items.file, columns, quotes=options.quotes):
            name = _id(cells[0], log.tally, place, items.id)
            listed.add(name)
            text = (cells[1].strip() if texts else "") or name
            said = fields_of(cells[1 + len(texts) :], items.fields, options.missing)
            yield ListedLabel(place, name, text, {_OWN_FIELD: name, **said})
    for name in log.items:
        if name not in listed:
            place = f"{path}: item {name!r}"
            if items is not None:
                log.tally.unlisted_items.at(place)
            yield ListedLabel(place, name, name, {_OWN_FIELD: name})


def _rows(
    read_log: Callable[[], _Log], path: str, split: str, options: ImportOptions, labels: Labels, tally: Tally
) -> Iterator[Row]:
    log = read_log()
    if split == SPLITS[0]:
        tally.add(log.tally)
    number = 0
    for user, name in enumerate(log.users):
        items = log.of(user)
        place = _user_place(path, name)
        for position in _positions(split, len(items), options.per_user):
            history = items[max(0, position - options.history) : position]
            said = {"user": name, "history": history}
            yield Row(place, number, f"{name}-{position + 1}", "", [items[position]], fields=said, group=name)
            number += 1


def _positions(split: str, count: int, per_user: int | None) -> range:
    """Which of a user's interactions are records of this split; the first has nothing before it and is none."""
    if split == "train":
        return range(max(1, 0 if per_user is None else count - 2 - per_user), max(1, count - 2))
    place = count - (1 if split == "test" else 2)
    return range(max(1, place), place + 1)


def _user_place(path: str, name: str) -> str:
    return f"{path}: user {name!r}"


def _id(cell: str, tally: Tally, place: str, column: str) -> str:
    name = clean_id(cell, tally, place)
    if not name:
        raise InputError(f"{place}: has no id in column {column!r}")
    return name


def _number(cell: str, place: str, column: str) -> float:
    value = _finite(cell)
    if value is None:
        raise InputError(f"{place}: {cell[:40]!r} in column {column!r} is no number")
    return value


def _finite(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
