"""The change log in a PostgreSQL database, which may keep the logs of many collections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

from index.change_log import PAGE, Row, read_row, rows_of
from index.changes import Change, LabelChange
from index.errors import BundleError, InputError, LabelspaceError, LogMovedError, first_line

if TYPE_CHECKING:
    from psycopg import Connection

LOG_FORMAT = 1
_MOST = (1 << 63) - 1
# Seconds to wait before each attempt to reach the server again.
_WAITS = (0.0, 0.25, 1.0, 2.0)
_CONNECTION: dict[str, Any] = {
    "application_name": "labelspace",
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "tcp_user_timeout": 30_000,
}
# For where the server sets none: nobody shall wait forever, or hold the lock of a log while asleep.
_TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout")
_TIMEOUT = "60s"
# What is answered is on disk, also where the server is set up to be faster than that.
_DURABLE: LiteralString = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
# A table that has grown since the server last counted it looks small to it: it would sort all the rest for every page.
_IN_ORDER: LiteralString = "SELECT set_config('enable_sort', 'off', false)"
_EXAMPLE = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
# An arbitrary number: two programs that make the tables at once would get in each other's way.
_MAKING_TABLES = 7_310_579_284_415_161
# body is text: jsonb refuses a null character, and would write numbers and keys in its own way. The order of numbers
# is that of commits because whoever appends holds the row of its collection in labelspace_logs until the end.
_TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE IF NOT EXISTS labelspace_logs (collection uuid PRIMARY KEY, format int NOT NULL, "
    "last bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS labelspace_changes (collection uuid NOT NULL, number bigint NOT NULL, "
    "at float8 NOT NULL, kind text NOT NULL, label text NOT NULL, body text NOT NULL, key text UNIQUE, seal bigint, "
    "PRIMARY KEY (collection, number))",
)
_SELECT: LiteralString = "SELECT number, at, kind, label, body, key, seal FROM labelspace_changes WHERE collection = %s"
_COPY: LiteralString = "COPY labelspace_changes (collection, number, at, kind, label, body, key, seal) FROM STDIN"


class PostgresLog:
    """One collection's rows of the tables `labelspace_changes` and `labelspace_logs`. See ChangeLog for the rest.

    A lost connection is made anew. Messages never hold the password.
    """

    read_only = False

    def __init__(self, url: str, collection: str) -> None:
        """Connect, and make the tables where they are not there. collection: its id, a UUID.

        Raises InputError for a URL that is none, or without psycopg; LabelspaceError when the server cannot be reached;
        BundleError for a log of a newer version.
        """
        self.place, self._settings, self._secrets = _settings(url)
        self._collection = UUID(collection)
        self._lock = threading.Lock()
        self._connection = self._connect()
        try:
            self._prepare()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, _errors()):
                raise self._failed("cannot be used", error) from error
            raise

    def append(self, changes: Sequence[LabelChange], after: int | None = None) -> list[int]:
        if not changes:
            return []
        key = uuid4().hex
        with self._lock:
            first = self._append(changes, after, key)
        return list(range(first, first + len(changes)))

    def since(self, number: int, upto: int | None = None) -> Iterator[Change]:
        query: LiteralString = f"{_SELECT} AND number > %s AND number <= %s ORDER BY number LIMIT %s"
        while True:
            rows = self._read(query, (self._collection, number, _MOST if upto is None else upto, PAGE))
            for row in rows:
                yield read_row(self.place, row)
            if len(rows) < PAGE:
                return
            number = rows[-1][0]

    def last(self) -> int:
        query: LiteralString = "SELECT max(number) FROM labelspace_changes WHERE collection = %s"
        return int(self._read(query, (self._collection,))[0][0] or 0)

    def verify(self) -> int:
        return sum(1 for _ in self.since(0))

    def take_over(self, rows: Iterator[Row]) -> None:
        """Store what another log had, under the same numbers, all or nothing."""
        with self._lock:
            try:
                self._begin(self._connection)
                last = self._copy(self._connection, rows)
                if last:
                    self._advance(self._connection, last)
                self._connection.execute("COMMIT")
            except _errors() as error:
                raise self._failed("the log of the collection could not be taken over", error) from error
            finally:
                _roll_back(self._connection)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _append(self, changes: Sequence[LabelChange], after: int | None, key: str) -> int:
        """The first number. An attempt that was cut off may have succeeded: the next one looks for its key first."""
        cut_off: BaseException | None = None
        for wait in _WAITS:
            time.sleep(wait)
            try:
                if self._connection.closed:
                    self._connection = self._connect()
                return self._attempt(self._connection, changes, after, key)
            except _errors() as error:
                if not self._connection.closed:
                    raise self._failed("the change was not stored", error) from error
                cut_off = error
            except _UnreachableError as error:
                cut_off = cut_off or error
            finally:
                _roll_back(self._connection)
        assert cut_off is not None  # noqa: S101
        raise self._failed("it is not known whether the change was stored; look, then try again", cut_off) from cut_off

    def _attempt(self, connection: Connection[Any], changes: Sequence[LabelChange], after: int | None, key: str) -> int:
        # Behind this lock no attempt from before is still on its way: it was committed, or never will be.
        newest = self._begin(connection)
        found = connection.execute("SELECT number FROM labelspace_changes WHERE key = %s", (key,)).fetchone()
        if found is not None:
            return int(found[0])
        if after is not None and newest > after:
            raise LogMovedError(f"{self.place}: change {newest} came in between; the writer knew {after}")
        first = max(newest, after or 0) + 1
        self._advance(connection, self._copy(connection, rows_of(changes, first, key)))
        connection.execute("COMMIT")
        return first

    def _begin(self, connection: Connection[Any]) -> int:
        """Begin, and lock the collection's log until the end; returns its newest number."""
        mine = (self._collection,)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO labelspace_logs VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", (*mine, LOG_FORMAT))
        locked = connection.execute("SELECT last FROM labelspace_logs WHERE collection = %s FOR UPDATE", mine)
        (newest,) = locked.fetchone() or (0,)
        return int(newest)

    def _advance(self, connection: Connection[Any], last: int) -> None:
        query: LiteralString = "UPDATE labelspace_logs SET last = %s WHERE collection = %s"
        connection.execute(query, (last, self._collection))

    def _copy(self, connection: Connection[Any], rows: Iterator[Row]) -> int:
        """Add these rows; returns the last number, 0 for none."""
        last = 0
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in rows:
                copy.write_row((self._collection, *row))
                last = row[0]
        return last

    def _read(self, query: LiteralString, values: Sequence[object]) -> list[Any]:
        with self._lock:
            lost: BaseException | None = None
            for wait in _WAITS:
                time.sleep(wait)
                try:
                    if self._connection.closed:
                        self._connection = self._connect()
                    return self._connection.execute(query, values).fetchall()
                except _errors() as error:
                    if not self._connection.closed:
                        raise self._failed("cannot be read", error) from error
                    lost = error
                except _UnreachableError as error:
                    lost = error
            assert lost is not None  # noqa: S101
            raise self._failed("cannot be read", lost) from lost

    def _connect(self) -> Connection[Any]:
        import psycopg

        try:
            connection: Connection[Any] = psycopg.connect(**self._settings, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise _UnreachableError(f"{self.place}: cannot be reached ({self._line(error)})") from None
        try:
            for name in _TIMEOUTS:
                query: LiteralString = "SELECT set_config(%s, %s, false) WHERE current_setting(%s) = '0'"
                connection.execute(query, (name, _TIMEOUT, name))
            connection.execute(_DURABLE)
            connection.execute(_IN_ORDER)
        except psycopg.Error as error:
            connection.close()
            raise _UnreachableError(f"{self.place}: cannot be reached ({self._line(error)})") from None
        return connection

    def _prepare(self) -> None:
        connection = self._connection
        there = "SELECT to_regclass('labelspace_changes') IS NOT NULL AND to_regclass('labelspace_logs') IS NOT NULL"
        if connection.execute(there).fetchone() != (True,):
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING_TABLES,))
                for table in _TABLES:
                    connection.execute(table)
        query: LiteralString = "SELECT format FROM labelspace_logs WHERE collection = %s"
        found = connection.execute(query, (self._collection,)).fetchone()
        if found is not None and found[0] > LOG_FORMAT:
            raise BundleError(f"{self.place}: change log of format {found[0]}; this program reads up to {LOG_FORMAT}")

    def _failed(self, what: str, error: BaseException) -> LabelspaceError:
        line = first_line(error) if isinstance(error, LabelspaceError) else self._line(error)
        return LabelspaceError(f"{self.place}: {what} ({line})")

    def _line(self, error: BaseException) -> str:
        line = first_line(error)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


class _UnreachableError(LabelspaceError):
    """There is no connection, and none to be had."""


def _errors() -> tuple[type[Exception], ...]:
    import psycopg

    return (psycopg.Error,)


def _roll_back(connection: Connection[Any]) -> None:
    with suppress(*_errors()):
        if not connection.closed:
            connection.rollback()


def _settings(url: str) -> tuple[str, dict[str, Any], list[str]]:
    """Where the log is, without a password; what psycopg connects with; and the secrets in that."""
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise InputError("a log in PostgreSQL needs psycopg: pip install 'labelspace[postgres]'") from error
    bad = f"the URL of the log cannot be read; it is like {_EXAMPLE}, with @ as %40 and / as %2F in the password"
    rest = url.partition("://")[2].partition("?")[0]
    # libpq would take a part of such a password for the host, and tell everybody.
    if rest.count("@") > 1 or "@" in rest.partition("/")[2]:
        raise InputError(bad)
    try:
        given = dict(conninfo_to_dict(url))
    except (ProgrammingError, ValueError):
        raise InputError(bad) from None
    user = f"{given['user']}@" if given.get("user") else ""
    port = f":{given['port']}" if given.get("port") else ""
    secrets = [str(given[name]) for name in ("password", "sslpassword", "passfile") if given.get(name)]
    place = f"postgresql://{user}{given.get('host') or 'localhost'}{port}/{given.get('dbname') or ''}"
    return place, {**_CONNECTION, **given}, secrets
