"""The durable log of changes to a collection, whatever keeps it: numbered, append-only, on disk when it is answered."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import time
from typing import Protocol
from uuid import uuid4

from index.changes import Change, LabelChange, decode, encode
from index.collection_folder import locked, log_of, mark_log
from index.errors import BundleError, InputError

LOG_FILE = "changes.sqlite"
# Where the URL of the log is looked for when a call names none: it may hold a password, which no file shall.
LOG_VARIABLE = "LABELSPACE_LOG"
# Rows read at a time, so that a long log is never in memory as a whole.
PAGE = 1000

# number, at, kind, label, body, key, seal: as every log stores a change. at: seconds since 1970, for people to read;
# nothing is ever ordered by it. key: of an append, on its first row. seal: CRC-32 of all before it.
Row = tuple[int, float, str, str, str, str | None, int | None]


class ChangeLog(Protocol):
    """What keeps the changes of one collection. Safe to use from several threads, and by several processes.

    Numbers rise in the order in which appends became durable, and may have gaps: who has seen number n will never
    meet a smaller one for the first time.
    """

    @property
    def place(self) -> str:
        """Where it is, for messages; never with a password."""

    @property
    def read_only(self) -> bool:
        """Whether it lies where nothing can be written."""

    def append(self, changes: Sequence[LabelChange], after: int | None = None) -> list[int]:
        """Add all changes or none, durably; returns their numbers, each greater than `after`.

        Raises LogMovedError when `after` is given and a newer change is there, LabelspaceError when they could not be
        stored. Of an append whose answer was lost it is found out whether it is there.
        """

    def since(self, number: int, upto: int | None = None) -> Iterator[Change]:
        """The changes after `number` (up to `upto`, with it), in order. Raises BundleError for one that is damaged."""

    def last(self) -> int:
        """The number of the newest change, 0 when there is none."""

    def verify(self) -> int:
        """Check everything that can be checked; returns how many changes there are. Raises BundleError."""

    def close(self) -> None:
        """Let go of the file or connection."""


def open_log(folder: Path, url: str | None = None) -> ChangeLog:
    """The log of the collection in `folder`: in PostgreSQL with a URL (or one in LABELSPACE_LOG), else a SQLite file.

    With the first URL, what the file has is taken over into the database; from then on the collection is not opened
    without one. Raises InputError for a URL that is none, BundleError for a log that this program cannot read.
    """
    from index.log_sqlite import SqliteLog

    url = url or os.environ.get(LOG_VARIABLE) or None
    if url is None:
        if log_of(folder).kind != "sqlite":
            raise BundleError(f"{folder}: its changes are in a PostgreSQL log; name it with --log or in {LOG_VARIABLE}")
        return SqliteLog(folder / LOG_FILE)
    if url.partition("://")[0] not in ("postgresql", "postgres"):
        raise InputError("the URL of the log has to begin with postgresql://; without one the log is a file")
    return _open_postgres(folder, url)


def _open_postgres(folder: Path, url: str) -> ChangeLog:
    from index.log_postgres import PostgresLog
    from index.log_sqlite import SqliteLog

    said = log_of(folder)
    if said.kind == "postgresql" and said.collection is not None:
        return PostgresLog(url, said.collection)
    # A URL that is wrong shall leave the collection as it is.
    PostgresLog(url, str(uuid4())).close()
    with locked(folder):
        said = log_of(folder)
        collection = said.collection or str(uuid4())
        if said.kind == "postgresql":
            return PostgresLog(url, collection)
        mark_log(folder, "sqlite", collection)
        log = PostgresLog(url, collection)
        try:
            if (folder / LOG_FILE).exists():
                file = SqliteLog(folder / LOG_FILE)
                try:
                    file.hand_over(log)
                finally:
                    file.close()
            mark_log(folder, "postgresql", collection)
        except BaseException:
            log.close()
            raise
    return log


def rows_of(changes: Sequence[LabelChange], first: int, key: str) -> Iterator[Row]:
    """What a log stores for one append whose first change gets the number `first`."""
    at = time()
    for place, change in enumerate(changes):
        row = (first + place, at, *encode(change), None if place else key)
        yield (*row, seal(*row))


def seal(number: int, at: float, kind: str, label: str, body: str, key: str | None) -> int:
    """CRC-32 of a row: databases do not notice a changed bit inside a text."""
    return zlib.crc32(f"{number}\n{at!r}\n{kind}\n{label}\n{body}\n{key or ''}".encode())


def read_row(place: str, row: Row) -> Change:
    """The change in a row. Raises BundleError when it is not what was written."""
    number, at, kind, label, body, key, sealed = row
    if sealed is not None and sealed != seal(number, at, kind, label, body, key):
        raise BundleError(f"{place}: change {number} is damaged; restore the log from a copy")
    return Change(number, decode(place, number, kind, label, body))
