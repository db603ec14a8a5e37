"""The durable log of changes to a collection's labels: numbered, append-only, on disk before it is answered."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import time

from index.changes import Change, LabelChange, decode, encode
from index.errors import BundleError, LabelspaceError, first_line

LOG_FORMAT = 1


class ChangeLog:
    """A SQLite file in WAL mode; every append is fsynced before it returns. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open or create the log. Raises BundleError when the file is not a log of this version."""
        self.path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version > LOG_FORMAT:
                raise BundleError(f"{path}: change log of format {version}; this program reads up to {LOG_FORMAT}")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS changes (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, "
                "kind TEXT NOT NULL, label TEXT NOT NULL, body TEXT NOT NULL)"
            )
            self._connection.execute(f"PRAGMA user_version = {LOG_FORMAT}")
        except sqlite3.Error as error:
            raise BundleError(f"{path}: not a readable change log ({first_line(error)})") from error

    def append(self, changes: Sequence[LabelChange]) -> list[int]:
        """Add all changes or none; returns their numbers. Raises LabelspaceError when they could not be stored."""
        rows = [(time(), *encode(change)) for change in changes]
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                numbers = [self._insert(row) for row in rows]
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise LabelspaceError(f"{self.path}: the change was not stored ({first_line(error)})") from error
        return numbers

    def since(self, number: int) -> Iterator[Change]:
        """The changes after `number`, in order."""
        query = "SELECT number, kind, label, body FROM changes WHERE number > ? ORDER BY number LIMIT 1000"
        while True:
            with self._lock:
                rows = self._fetch(query, number)
            if not rows:
                return
            for number, kind, label, body in rows:
                yield Change(number, decode(str(self.path), number, kind, label, body))

    def last(self) -> int:
        """The number of the newest change, 0 when there is none."""
        with self._lock:
            newest = self._fetch("SELECT max(number) FROM changes WHERE number > ?", 0)[0][0]
        return int(newest or 0)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _insert(self, row: tuple[float, str, str, str]) -> int:
        cursor = self._connection.execute("INSERT INTO changes (at, kind, label, body) VALUES (?, ?, ?, ?)", row)
        return int(cursor.lastrowid or 0)

    def _fetch(self, query: str, number: int) -> list[tuple[int, str, str, str]]:
        try:
            return self._connection.execute(query, (number,)).fetchall()
        except sqlite3.Error as error:
            raise BundleError(f"{self.path}: not a readable change log ({first_line(error)})") from error
