"""The change log: what it took it gives back, in order, and foreign files are refused."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from index.change_log import ChangeLog
from index.changes import Change, LabelChange, PutLabel, RemoveLabel
from index.errors import BundleError, LabelspaceError

CHANGES: list[LabelChange] = [
    PutLabel("a", "größe \x00 日本"),
    PutLabel("b", "", ("one", "two\nlines")),
    RemoveLabel("a"),
    PutLabel("c", vector=(0.5, -1.25)),
    PutLabel("d", "text", fields={"größe": ["日本", 3, True], "age": 1e400, "empty": None}),
]


def test_gives_back_what_it_took_also_after_reopening(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log")
    assert log.last() == 0
    assert log.append(CHANGES[:3]) == [1, 2, 3]
    assert log.append(CHANGES[3:]) == [4, 5]
    log.close()
    again = ChangeLog(tmp_path / "log")
    assert list(again.since(0)) == [Change(number, what) for number, what in enumerate(CHANGES, start=1)]
    assert [change.number for change in again.since(2)] == [3, 4, 5]
    assert list(again.since(5)) == []
    assert again.last() == 5
    again.close()


def test_a_log_from_before_labels_had_fields_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log")
    log.append([PutLabel("a", "x", ("y",)), PutLabel("b", "x", fields={})])
    old = sqlite3.connect(tmp_path / "log")
    bodies = [body for (body,) in old.execute("SELECT body FROM changes ORDER BY number")]
    assert bodies == [
        '{"text": "x", "examples": ["y"], "vector": null}',
        '{"text": "x", "examples": [], "vector": null}',
    ]
    row = (0.0, "put", "größe", '{"text": "日本", "examples": ["one"], "vector": [1.0, -2.5]}')
    old.execute("INSERT INTO changes (at, kind, label, body) VALUES (?, ?, ?, ?)", row)
    old.commit()
    old.close()
    (found,) = log.since(2)
    assert found.what == PutLabel("größe", "日本", ("one",), (1.0, -2.5), None)
    log.close()


def test_long_logs_come_in_order(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log")
    log.append([PutLabel(f"l{number}", "x") for number in range(2500)])
    assert [change.what.id for change in log.since(0)] == [f"l{number}" for number in range(2500)]
    log.close()


def test_appending_nothing_changes_nothing(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log")
    assert log.append([]) == []
    assert log.last() == 0
    log.close()


def test_threads_and_connections_get_different_numbers(tmp_path: Path) -> None:
    logs = [ChangeLog(tmp_path / "log") for _ in range(2)]
    numbers: list[int] = []

    def write(log: ChangeLog, name: str) -> None:
        for count in range(20):
            numbers.extend(log.append([PutLabel(f"{name}{count}", "x")]))

    threads = [threading.Thread(target=write, args=(logs[place % 2], f"t{place}-")) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 81))
    for log in logs:
        log.close()


def test_a_change_that_cannot_be_stored_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    log = ChangeLog(tmp_path / "log")
    other = sqlite3.connect(tmp_path / "log")
    other.execute(
        "CREATE TRIGGER full BEFORE INSERT ON changes WHEN NEW.label = 'b' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    other.commit()
    other.close()
    with pytest.raises(LabelspaceError, match="was not stored"):
        log.append(CHANGES[:2])
    assert log.last() == 0
    assert log.append(CHANGES[:1])[0] >= 1
    log.close()


def test_a_file_that_is_no_log_or_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"not a database, surely" * 100)
    with pytest.raises(BundleError, match="noise: not a readable change log"):
        ChangeLog(tmp_path / "noise")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 9")
    newer.commit()
    newer.close()
    with pytest.raises(BundleError, match="format 9"):
        ChangeLog(tmp_path / "newer")
    with pytest.raises(BundleError, match="missing"):
        ChangeLog(tmp_path / "missing" / "log")
