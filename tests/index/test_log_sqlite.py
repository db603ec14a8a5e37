"""The SQLite log: its file through versions, damage, lost commits and places that cannot be written."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.changes import Change, PutLabel, RemoveLabel
from index.errors import BundleError, LabelspaceError
from index.log_sqlite import SqliteLog

FORMAT_1 = (
    "CREATE TABLE changes (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, "
    "kind TEXT NOT NULL, label TEXT NOT NULL, body TEXT NOT NULL)"
)
OLD_BODY = '{"text": "日本", "examples": ["one"], "vector": [1.0, -2.5]}'


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    opened = SqliteLog(tmp_path / "log")
    yield opened
    opened.close()


def write_format_1(path: Path) -> None:
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode = WAL")
    old.execute(FORMAT_1)
    rows = [(0.25, "put", "größe", OLD_BODY), (-1.0, "remove", "a", "{}")]
    old.executemany("INSERT INTO changes (at, kind, label, body) VALUES (?, ?, ?, ?)", rows)
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()


def test_a_log_of_the_first_format_is_taken_over_and_sealed(tmp_path: Path) -> None:
    write_format_1(tmp_path / "old")
    wanted = [Change(1, PutLabel("größe", "日本", ("one",), (1.0, -2.5), None)), Change(2, RemoveLabel("a"))]
    for _ in range(2):
        log = SqliteLog(tmp_path / "old")
        assert list(log.since(0)) == wanted
        assert log.verify() == 2
        log.close()
    changed = sqlite3.connect(tmp_path / "old")
    assert changed.execute("PRAGMA user_version").fetchone() == (2,)
    # An older program that still has the file open writes without key and seal.
    changed.execute("INSERT INTO changes (at, kind, label, body) VALUES (1, 'remove', 'b', '{}')")
    changed.execute("UPDATE changes SET label = 'c' WHERE number = 2")
    changed.commit()
    changed.close()
    log = SqliteLog(tmp_path / "old")
    assert list(log.since(2)) == [Change(3, RemoveLabel("b"))]
    assert log.append([RemoveLabel("d")]) == [4]
    with pytest.raises(BundleError, match="change 2 is damaged"):
        log.verify()
    log.close()


def test_labels_without_fields_are_written_as_before_labels_had_them(tmp_path: Path, log: SqliteLog) -> None:
    log.append([PutLabel("a", "x", ("y",)), PutLabel("b", "x", fields={})])
    reader = sqlite3.connect(tmp_path / "log")
    assert [body for (body,) in reader.execute("SELECT body FROM changes ORDER BY number")] == [
        '{"text": "x", "examples": ["y"], "vector": null}',
        '{"text": "x", "examples": [], "vector": null}',
    ]
    reader.close()


def test_a_statement_that_fails_leaves_nothing(tmp_path: Path, log: SqliteLog) -> None:
    other = sqlite3.connect(tmp_path / "log")
    other.execute(
        "CREATE TRIGGER full BEFORE INSERT ON changes WHEN NEW.label = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    other.commit()
    other.close()
    with pytest.raises(LabelspaceError, match=r"log: the change was not stored \(no\)"):
        log.append([PutLabel("a", "x"), PutLabel("b", "x")])
    assert log.last() == 0
    assert log.append([PutLabel("a", "x")]) == [1]


@pytest.mark.parametrize("stored", [True, False])
def test_of_a_commit_that_fails_it_is_found_out_whether_it_was_stored(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    log.append([PutLabel("first", "x")])

    def fail() -> None:
        if stored:
            log._connection.execute("COMMIT")
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(log, "_commit", fail)
        if stored:
            assert log.append([PutLabel("a", "x"), PutLabel("b", "x")]) == [2, 3]
        else:
            with pytest.raises(LabelspaceError, match=r"was not stored \(disk I/O error\)"):
                log.append([PutLabel("a", "x"), PutLabel("b", "x")])
    assert log.last() == (3 if stored else 1)
    assert log.append([PutLabel("c", "x")]) == [4 if stored else 2]


def test_when_even_that_cannot_be_found_out_it_says_so_and_goes_on_later(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*ignored: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(log, "_commit", fail)
        broken.setattr("index.log_sqlite._open", fail)
        with pytest.raises(LabelspaceError, match="it is not known whether the change was stored"):
            log.append([PutLabel("a", "x")])
    assert log.append([PutLabel("a", "x")]) == [1]


def test_a_file_that_is_no_log_or_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"not a database, surely" * 100)
    with pytest.raises(BundleError, match="noise: not a readable change log"):
        SqliteLog(tmp_path / "noise")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 9")
    newer.commit()
    newer.close()
    with pytest.raises(BundleError, match="newer: change log of format 9; this program reads up to 2"):
        SqliteLog(tmp_path / "newer")
    with pytest.raises(BundleError, match="missing"):
        SqliteLog(tmp_path / "missing" / "log")


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path, chooser = tmp_path / "log", random.Random(1)
    log = SqliteLog(path)
    log.append([PutLabel(f"l{number}", f"a text {number}", (f"example {number}",)) for number in range(60)])
    wanted = list(log.since(0))
    log.close()
    whole = path.read_bytes()
    found = 0
    for _ in range(150):
        place, bit = chooser.randrange(len(whole)), 1 << chooser.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            damaged = SqliteLog(path)
        except BundleError:
            found += 1
            continue
        try:
            assert damaged.verify() == 60
            assert list(damaged.since(0)) == wanted
        except BundleError as error:
            assert str(error).startswith(str(path))
            found += 1
        finally:
            damaged.close()
            for left in (f"{path}-wal", f"{path}-shm"):
                Path(left).unlink(missing_ok=True)
    assert found > 30


READER = """
import os, sys
from pathlib import Path
from index.changes import PutLabel
from index.errors import LabelspaceError
from index.log_sqlite import SqliteLog
if os.geteuid() == 0:
    # Nothing is forbidden to root.
    os.setgid(65534)
    os.setuid(65534)
log = SqliteLog(Path(sys.argv[1]))
print(log.read_only, log.last(), [change.what.id for change in log.since(0)], log.verify())
try:
    log.append([PutLabel("new", "x")])
except LabelspaceError as error:
    print(error)
log.close()
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that any user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="labelspace-test-"))
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def read_only(folder: Path, name: str = "log") -> str:
    """What somebody who may only read finds in the log."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", READER, str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr.strip().rpartition("\n")[2]


def test_where_nothing_can_be_written_it_opens_for_reading(public: Path) -> None:
    log = SqliteLog(public / "log")
    log.append([PutLabel("a", "x"), PutLabel("b", "x")])
    log.close()
    refusal = f"{public / 'log'}: cannot be written here; nothing was changed\n"
    assert read_only(public) == f"True 2 ['a', 'b'] 2\n{refusal}"
    assert read_only(public, "absent") == f"True 0 [] 0\n{refusal.replace('log:', 'absent:')}"


def test_an_old_log_or_one_that_a_killed_process_left_is_read_there_too(public: Path) -> None:
    write_format_1(public / "log")
    assert read_only(public).startswith("True 2 ['größe', 'a'] 2\n")
    public.chmod(0o755)
    (public / "log").chmod(0o644)
    log = SqliteLog(public / "log")
    log.append([PutLabel("in the WAL", "x")])
    killed = public / "killed"
    killed.mkdir()
    for name in ("log", "log-wal", "log-shm"):
        shutil.copy(public / name, killed / name)
    log.close()
    assert read_only(killed).startswith("True 3 ['größe', 'a', 'in the WAL'] 3\n")
    killed.chmod(0o755)
    (killed / "log-shm").chmod(0o644)
    (killed / "log-shm").unlink()
    # What is in the WAL must not be overlooked.
    assert "not a readable change log" in read_only(killed)
