"""The change log as a SQLite file in the collection's folder."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from index.change_log import PAGE, Row, read_row, rows_of, seal
from index.changes import Change, LabelChange
from index.errors import BundleError, LabelspaceError, LogMovedError, first_line

# 2: with the key of each append and a seal on each row.
LOG_FORMAT = 2
_WAIT_SECONDS = 30
_MOST = (1 << 63) - 1
_COLUMNS = "number, at, kind, label, body, key, seal"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS changes (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, "
    "kind TEXT NOT NULL, label TEXT NOT NULL, body TEXT NOT NULL, key TEXT, seal INTEGER)"
)


class _Taker(Protocol):
    def last(self) -> int: ...

    def take_over(self, rows: Iterator[Row]) -> None: ...


class SqliteLog:
    """A SQLite file in WAL mode; every append is fsynced before it returns. See ChangeLog for the rest.

    Where nothing can be written it opens for reading; a file that is not there is then an empty log.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the log. Raises BundleError when the file is not a log of this version."""
        self.place = str(path)
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection, self.read_only = _open(path)
        except sqlite3.Error as error:
            raise BundleError(f"{path}: not a readable change log ({first_line(error)})") from error

    def append(self, changes: Sequence[LabelChange], after: int | None = None) -> list[int]:
        if not changes:
            return []
        if self.read_only:
            raise LabelspaceError(f"{self.place}: cannot be written here; nothing was changed")
        with self._lock:
            first = self._append(changes, after)
        return list(range(first, first + len(changes)))

    def since(self, number: int, upto: int | None = None) -> Iterator[Change]:
        for row in self._rows(number, upto):
            yield read_row(self.place, row)

    def last(self) -> int:
        with self._lock:
            newest = self._fetch("SELECT max(number) FROM changes", ())[0][0]
        return int(newest or 0)

    def verify(self) -> int:
        with self._lock:
            (found,) = self._fetch("PRAGMA integrity_check(1)", ())[0]
        if found != "ok":
            raise BundleError(f"{self.place}: is damaged ({str(found).splitlines()[-1]}); restore it from a copy")
        return sum(1 for _ in self.since(0))

    def hand_over(self, other: _Taker) -> None:
        """Let another log take over what it does not have yet; afterwards nothing can be appended here any more."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                rows = self._connection.execute(
                    f"SELECT {_COLUMNS} FROM changes WHERE number > ? ORDER BY number",  # noqa: S608
                    (other.last(),),
                )
                other.take_over(iter(rows))
                # A process that has this file open shall not go on writing what nobody reads.
                self._connection.execute(
                    "CREATE TRIGGER IF NOT EXISTS handed_over BEFORE INSERT ON changes "
                    "BEGIN SELECT RAISE(ABORT, 'the changes of this collection are kept in PostgreSQL now'); END"
                )
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise LabelspaceError(f"{self.place}: could not be handed over ({first_line(error)})") from error
            finally:
                self._roll_back()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _append(self, changes: Sequence[LabelChange], after: int | None) -> int:
        key, committing = uuid4().hex, False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            first = self._next(after)
            self._connection.executemany(
                f"INSERT INTO changes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                rows_of(changes, first, key),
            )
            committing = True
            self._commit()
        except sqlite3.Error as error:
            # An error of the commit does not say whether it came before or after the point of no return.
            found = self._find(key) if committing else None
            if found is None:
                raise LabelspaceError(f"{self.place}: the change was not stored ({first_line(error)})") from error
            first = found
        finally:
            self._roll_back()
        return first

    def _next(self, after: int | None) -> int:
        """The number of the next change: also behind what a bundle has, of a log that was lost."""
        newest = self._connection.execute(
            "SELECT coalesce(max(number), 0), (SELECT coalesce(max(seq), 0) FROM sqlite_sequence) FROM changes"
        ).fetchone()
        if after is not None and newest[0] > after:
            raise LogMovedError(f"{self.place}: change {newest[0]} came in between; the writer knew {after}")
        return int(max(*newest, after or 0)) + 1

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _find(self, key: str) -> int | None:
        """The first number of the append with this key, read by a connection that knows of nothing unfinished."""
        try:
            self._roll_back()
            fresh, self.read_only = _open(self._path)
            self._connection.close()
            self._connection = fresh
            found = self._connection.execute("SELECT number FROM changes WHERE key = ?", (key,)).fetchone()
        except (sqlite3.Error, BundleError) as error:
            raise LabelspaceError(
                f"{self.place}: it is not known whether the change was stored ({first_line(error)}); look first"
            ) from error
        return None if found is None else int(found[0])

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _rows(self, number: int, upto: int | None) -> Iterator[Row]:
        with self._lock:
            columns = _columns(self._connection)
        query = f"SELECT {columns} FROM changes WHERE number > ? AND number <= ? ORDER BY number LIMIT {PAGE}"  # noqa: S608
        limit = _MOST if upto is None else upto
        while True:
            with self._lock:
                rows = self._fetch(query, (number, limit))
            yield from rows
            if len(rows) < PAGE:
                return
            number = rows[-1][0]

    def _fetch(self, query: str, values: tuple[int, ...]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise BundleError(f"{self.place}: not a readable change log ({first_line(error)})") from error


def _open(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection, and whether it is for reading only. Raises sqlite3.Error, or BundleError for a newer log."""
    try:
        # SQLite also opens what it cannot write, and says so only when it is written.
        return _connect(str(path), path, _prepare), not os.access(path, os.W_OK)
    except sqlite3.OperationalError as error:
        if (error.sqlite_errorcode & 0xFF) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        if not path.exists():
            if not path.parent.is_dir() or os.access(path.parent, os.W_OK):
                raise
            return _connect(":memory:", path, _prepare), True
    place = quote(str(path.absolute()))
    try:
        return _connect(f"file:{place}?mode=ro", path, _check_version), True
    except sqlite3.OperationalError:
        # Beside a file in WAL mode SQLite wants to write even to read, unless nobody can change the file. What is in
        # the WAL would then be overlooked.
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return _connect(f"file:{place}?mode=ro&immutable=1", path, _check_version), True


def _connect(place: str, path: Path, prepare: Callable[[sqlite3.Connection, Path], object]) -> sqlite3.Connection:
    connection = sqlite3.connect(
        place, timeout=_WAIT_SECONDS, check_same_thread=False, isolation_level=None, uri=place.startswith("file:")
    )
    try:
        prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if _check_version(connection, path) == LOG_FORMAT:
        return
    connection.create_function("seal_of", 6, seal, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_TABLE)
    if "key" not in _names(connection):
        connection.execute("ALTER TABLE changes ADD COLUMN key TEXT")
        connection.execute("ALTER TABLE changes ADD COLUMN seal INTEGER")
        connection.execute("UPDATE changes SET seal = seal_of(number, at, kind, label, body, key)")
    connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS changes_key ON changes (key) WHERE key IS NOT NULL")
    connection.execute(f"PRAGMA user_version = {LOG_FORMAT}")
    connection.execute("COMMIT")


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > LOG_FORMAT:
        raise BundleError(f"{path}: change log of format {version}; this program reads up to {LOG_FORMAT}")
    return version


def _columns(connection: sqlite3.Connection) -> str:
    """Those of a change; a log that could not be brought to this format has no keys and seals."""
    return _COLUMNS if "key" in _names(connection) else "number, at, kind, label, body, NULL, NULL"


def _names(connection: sqlite3.Connection) -> set[str]:
    return {row[1] for row in connection.execute("PRAGMA table_info(changes)")}
