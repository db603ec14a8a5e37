"""The PostgreSQL log: lost connections, answers that never came, wrong URLs, and taking over a file's changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from index.change_log import open_log
from index.changes import Change, PutLabel, RemoveLabel
from index.collection_folder import check_collection, create_collection, log_of, mark_log
from index.errors import BundleError, InputError, LabelspaceError, LogMovedError
from index.log_postgres import PostgresLog
from index.log_sqlite import SqliteLog
from postgres_support import Proxy


@pytest.fixture
def proxy(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("index.log_postgres._WAITS", (0.0, 0.01, 0.01, 0.2))
    opened = Proxy(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_collection(tmp_path / "collection")
    return tmp_path / "collection"


def test_collections_in_one_database_know_nothing_of_each_other(postgres_url: str) -> None:
    one, two = (PostgresLog(postgres_url, str(uuid4())) for _ in range(2))
    assert one.append([PutLabel("a", "x"), PutLabel("b", "x")]) == [1, 2]
    assert two.append([PutLabel("c", "x")], after=0) == [1]
    assert [change.what for change in two.since(0)] == [PutLabel("c", "x")]
    assert (one.last(), two.last(), one.verify(), two.verify()) == (2, 1, 2, 1)
    one.close()
    two.close()


def test_a_connection_that_the_server_ends_is_made_anew(postgres_url: str) -> None:
    log = PostgresLog(postgres_url, str(uuid4()))
    log.append([PutLabel("a", "x")])

    def end() -> None:
        with psycopg.connect(postgres_url) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'labelspace' AND pid <> pg_backend_pid()"
            )

    end()
    assert log.append([PutLabel("b", "x")], after=1) == [2]
    end()
    assert log.last() == 2
    end()
    assert [change.number for change in log.since(0)] == [1, 2]
    log.close()


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("statement", [b"BEGIN", b"FOR UPDATE", b"COPY", b"UPDATE labelspace_logs", b"COMMIT"])
def test_an_append_whose_connection_is_lost_is_stored_once(proxy: Proxy, where: str, statement: bytes) -> None:
    log = PostgresLog(proxy.url, str(uuid4()))
    log.append([PutLabel("first", "x")])
    cuts: list[str] = []

    def cut(sent: bytes) -> str | None:
        if statement not in sent or cuts:
            return None
        cuts.append(where)
        return where

    proxy.cut = cut
    assert log.append([PutLabel("a", "x"), PutLabel("b", "x")], after=1) == [2, 3]
    assert cuts == [where]
    with pytest.raises(LogMovedError):
        log.append([PutLabel("late", "x")], after=1)
    assert [change.what for change in log.since(0)] == [PutLabel(name, "x") for name in ("first", "a", "b")]
    log.close()


def test_when_the_server_stays_away_it_says_what_is_not_known(proxy: Proxy) -> None:
    log = PostgresLog(proxy.url, str(uuid4()))
    proxy.cut = lambda sent: "before"
    with pytest.raises(LabelspaceError, match="it is not known whether the change was stored"):
        log.append([PutLabel("a", "x")])
    with pytest.raises(LabelspaceError, match="cannot be read"):
        log.last()
    proxy.cut = lambda sent: None
    assert log.append([PutLabel("a", "x")]) == [1]
    log.close()


def test_a_statement_that_takes_too_long_is_an_error_and_stores_nothing(postgres_url: str) -> None:
    collection = str(uuid4())
    log = PostgresLog(f"{postgres_url}&options=-cstatement_timeout%3D100", collection)
    log.append([PutLabel("a", "x")])
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT * FROM labelspace_logs WHERE collection = %s FOR UPDATE", (collection,))
        with pytest.raises(LabelspaceError, match=r"was not stored \(canceling statement due to statement timeout\)"):
            log.append([PutLabel("b", "x")])
        # Who reads does not wait for who writes.
        assert log.last() == 1
    assert log.append([PutLabel("b", "x")]) == [2]
    log.close()


def test_what_is_answered_is_durable_and_nobody_waits_forever(postgres_url: str) -> None:
    log = PostgresLog(f"{postgres_url}&options=-csynchronous_commit%3Doff", str(uuid4()))
    for name, wanted in (("synchronous_commit", "on"), ("statement_timeout", "1min")):
        assert log._connection.execute(f"SHOW {name}".encode()).fetchone() == (wanted,)
    log.close()
    log = PostgresLog(f"{postgres_url}&options=-csynchronous_commit%3Dremote_apply", str(uuid4()))
    assert log._connection.execute("SHOW synchronous_commit").fetchone() == ("remote_apply",)
    log.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:se@cret@localhost/db", "postgresql://user:se/cret@localhost/db",
        "postgresql://user:secret@localhost:port/db", "postgresql://user:secret@localhost/db?no_such=secret",
        "postgresql://user:se%zzcret@localhost/db", "mysql://user:secret@localhost/db", "secret", "://secret@x",
        "postgresql://user:secret@127.0.0.1:9/db", "postgresql://user:secret@no-such-host.invalid/db",
        "postgresql://user@127.0.0.1:9/db?password=secret",
    ],
)  # fmt: skip
def test_a_url_that_leads_nowhere_is_one_line_without_the_password(folder: Path, url: str) -> None:
    with pytest.raises(LabelspaceError) as caught:
        open_log(folder, url)
    error: BaseException | None = caught.value
    assert "\n" not in str(error)
    while error is not None:
        assert "cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert log_of(folder).kind == "sqlite"


def test_a_wrong_password_is_one_line_without_it(postgres_url: str, folder: Path) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        (path,) = database.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(path).read_text()
        Path(path).write_text(f"local all guarded scram-sha-256\n{rules}")
        database.execute("SELECT pg_reload_conf()")
        host = postgres_url.partition("?")[2]
        try:
            with pytest.raises(LabelspaceError, match=r"cannot be reached .*password authentication failed") as caught:
                open_log(folder, f"postgresql://guarded:wrongword@/postgres?{host}")
            assert "wrongword" not in str(caught.value)
        finally:
            Path(path).write_text(rules)
            database.execute("SELECT pg_reload_conf()")
            database.execute("DROP ROLE guarded")


def test_without_psycopg_it_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"pip install 'labelspace\[postgres\]'"):
        open_log(folder, "postgresql://localhost/x")


def test_a_log_of_a_newer_version_is_refused(postgres_url: str) -> None:
    collection = str(uuid4())
    PostgresLog(postgres_url, collection).close()
    with psycopg.connect(postgres_url) as database:
        database.execute("INSERT INTO labelspace_logs VALUES (%s, 9, 0)", (collection,))
    with pytest.raises(BundleError, match="format 9"):
        PostgresLog(postgres_url, collection)


def test_the_first_url_takes_over_the_changes_of_the_file_under_their_numbers(postgres_url: str, folder: Path) -> None:
    file = open_log(folder)
    file.append([PutLabel("größe", "x \x00", ("one",)), RemoveLabel("b")], after=6)
    moved = open_log(folder, postgres_url)
    wanted = [Change(7, PutLabel("größe", "x \x00", ("one",))), Change(8, RemoveLabel("b"))]
    assert list(moved.since(0)) == wanted
    assert moved.verify() == 2
    # A process that has the file open must not write where nobody looks.
    with pytest.raises(LabelspaceError, match=r"was not stored \(the changes .* are kept in PostgreSQL now\)"):
        file.append([PutLabel("lost", "x")])
    file.close()
    assert moved.append([PutLabel("c", "x")]) == [9]
    moved.close()
    header = json.loads((folder / "collection.json").read_text())
    assert (header["format"], header["log"], log_of(folder).kind) == (2, "postgresql", "postgresql")
    assert str(postgres_url) not in (folder / "collection.json").read_text()
    with pytest.raises(BundleError, match="its changes are in a PostgreSQL log; name it with --log or in LABELSPACE"):
        open_log(folder)
    again = open_log(folder, postgres_url)
    assert [change.number for change in again.since(0)] == [7, 8, 9]
    again.close()


@pytest.mark.parametrize("killed_after", ["take_over", "mark_log"])
def test_a_take_over_that_is_killed_goes_on_the_next_time(
    postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, killed_after: str
) -> None:
    file = SqliteLog(folder / "changes.sqlite")
    file.append([PutLabel("a", "x"), PutLabel("b", "x")])

    class KilledError(Exception):
        pass

    take_over = PostgresLog.take_over

    def die(log: PostgresLog, rows: Any) -> None:
        take_over(log, rows)
        raise KilledError

    def die_later(folder: Path, kind: str, collection: str) -> None:
        if kind == "postgresql":
            raise KilledError
        mark_log(folder, kind, collection)

    with monkeypatch.context() as broken:
        if killed_after == "take_over":
            broken.setattr(PostgresLog, "take_over", die)
        else:
            broken.setattr("index.change_log.mark_log", die_later)
        with pytest.raises(KilledError):
            open_log(folder, postgres_url)
    assert log_of(folder).kind == "sqlite"
    wanted = "ab"
    if killed_after == "take_over":
        # Until it is done the file is the log, with all that comes to it.
        assert file.append([PutLabel("c", "x")]) == [3]
        wanted = "abc"
    file.close()
    log = open_log(folder, postgres_url)
    assert [change.what for change in log.since(0)] == [PutLabel(name, "x") for name in wanted]
    log.close()


def test_the_environment_may_name_the_log(postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSPACE_LOG", postgres_url)
    log = open_log(folder)
    assert isinstance(log, PostgresLog)
    assert log.append([PutLabel("a", "x")]) == [1]
    log.close()


FIRST = """
import sys
from pathlib import Path
from index.change_log import open_log
from index.changes import PutLabel
log = open_log(Path(sys.argv[1]), sys.argv[2])
log.append([PutLabel(sys.argv[3], "x")])
log.close()
"""


def test_processes_that_are_all_the_first_agree_on_one_log(postgres_url: str, folder: Path) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE DATABASE fresh")
    url = postgres_url.replace("/postgres?", "/fresh?")
    processes = [subprocess.Popen([sys.executable, "-c", FIRST, str(folder), url, name]) for name in "abcd"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    log = open_log(folder, url)
    assert sorted(str(change.what) for change in log.since(0)) == [str(PutLabel(name, "x")) for name in "abcd"]
    assert log.last() == 4
    log.close()


@pytest.mark.parametrize("header", ['{"format": 2, "log": "postgresql"}', '{"format": 2, "log": "oracle"}',
                                    '{"format": 1, "id": 7}', '{"format": 1, "id": "x"}', '{"format": 3}'])  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(folder: Path, header: str) -> None:
    (folder / "collection.json").write_text(header)
    with pytest.raises(BundleError):
        check_collection(folder)
        log_of(folder)
