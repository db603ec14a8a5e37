"""The change log, kept by SQLite and by PostgreSQL: what it took it gives back, in order, whatever happens."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from index.change_log import ChangeLog, open_log
from index.changes import Change, Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.collection_folder import create_collection
from index.errors import BundleError, LogMovedError

CHANGES: list[LabelChange] = [
    PutLabel("a", "größe \x00 日本"),
    PutLabel("b", "", ("one", "two\nlines\t\\N\\.")),
    RemoveLabel("a"),
    PutLabel("c", vector=(0.5, -1.25)),
    PutLabel("d", "text", fields={"größe": ["日本", 3, True], "age": 1e400, "empty": None}),
    Feedback("ein Text", ("b", "c"), ("d",), {"lang": "de"}),
    RemoveExample("ein Text", "b"),
    RemoveExample("", None, {"lang": "de"}),
]

Opener = Callable[[], ChangeLog]
Place = tuple[Path, str | None]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A collection's folder, and the URL of its log; None for a file."""
    create_collection(tmp_path / "collection")
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return tmp_path / "collection", url


@pytest.fixture
def opened(place: Place) -> Iterator[Opener]:
    """Opens the same log as often as wanted; all are closed in the end."""
    logs: list[ChangeLog] = []

    def another() -> ChangeLog:
        logs.append(open_log(*place))
        return logs[-1]

    yield another
    for log in logs:
        log.close()


def damage(place: Place, statement: str) -> None:
    """Run SQL on the rows of the log; the table's name is written {changes}."""
    folder, url = place
    if url is None:
        connection = sqlite3.connect(folder / "changes.sqlite")
        connection.execute(statement.format(changes="changes"))
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(url) as database:
            database.execute(statement.format(changes="labelspace_changes").encode())


def test_gives_back_what_it_took_also_after_reopening(opened: Opener) -> None:
    log = opened()
    assert log.last() == 0
    assert log.append(CHANGES[:3]) == [1, 2, 3]
    assert log.append(CHANGES[3:]) == [4, 5, 6, 7, 8]
    again = opened()
    assert list(again.since(0)) == [Change(number, what) for number, what in enumerate(CHANGES, start=1)]
    assert [change.number for change in again.since(2)] == [3, 4, 5, 6, 7, 8]
    assert [change.number for change in again.since(2, 4)] == [3, 4]
    assert list(again.since(8)) == list(again.since(3, 3)) == list(again.since(0, 0)) == []
    assert (again.last(), again.verify(), again.read_only) == (8, 8, False)


def test_long_logs_come_in_order(opened: Opener) -> None:
    log = opened()
    assert log.append([PutLabel(f"l{number}", "x") for number in range(2500)]) == list(range(1, 2501))
    found = list(log.since(0))
    assert [change.what for change in found] == [PutLabel(f"l{number}", "x") for number in range(2500)]
    assert [change.number for change in found] == list(range(1, 2501))
    assert [change.number for change in log.since(999, 2001)] == list(range(1000, 2002))


def test_appending_nothing_changes_nothing(opened: Opener) -> None:
    log = opened()
    assert log.append([]) == log.append([], after=0) == []
    assert log.last() == 0
    assert list(log.since(0)) == []
    assert log.verify() == 0


def test_who_did_not_know_the_newest_change_is_told_and_nothing_is_stored(opened: Opener) -> None:
    one, two = opened(), opened()
    assert one.append(CHANGES[:1], after=0) == [1]
    with pytest.raises(LogMovedError, match="change 1 came in between; the writer knew 0"):
        two.append(CHANGES[1:2], after=0)
    assert two.append(CHANGES[1:2], after=1) == [2]
    assert [change.what for change in one.since(0)] == CHANGES[:2]


def test_numbers_go_on_behind_what_a_bundle_has_of_a_log_that_was_lost(opened: Opener) -> None:
    assert opened().append(CHANGES[:2], after=70) == [71, 72]
    assert opened().append(CHANGES[:1]) == [73]
    assert opened().last() == 73


def test_a_clock_that_goes_backwards_changes_no_order(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened()
    for seconds in (2e9, 1e9, -5.0, 1.5e9):
        monkeypatch.setattr("index.change_log.time", lambda seconds=seconds: seconds)
        log.append([PutLabel(f"at{seconds:.0f}", "x")])
    assert [change.what for change in opened().since(0)] == [
        PutLabel(name, "x") for name in ("at2000000000", "at1000000000", "at-5", "at1500000000")
    ]


def test_a_change_that_cannot_be_stored_is_an_error_and_leaves_nothing(place: Place, opened: Opener) -> None:
    log = opened()
    with pytest.raises(UnicodeEncodeError):
        log.append([PutLabel("fine", "x"), PutLabel("half", "\ud800")])
    assert log.last() == 0
    assert log.append(CHANGES[:1]) == [1]
    assert log.verify() == 1


def test_threads_and_connections_get_different_numbers_and_no_reader_meets_a_smaller_one_late(opened: Opener) -> None:
    logs = [opened() for _ in range(3)]
    numbers: list[int] = []
    seen: list[int] = []
    ended = threading.Event()

    def write(log: ChangeLog, name: str) -> None:
        for count in range(20):
            numbers.extend(log.append([PutLabel(f"{name}{count}-{part}", "x") for part in range(1 + count % 3)]))

    def read() -> None:
        last = False
        while not last:
            last = ended.is_set()
            seen.extend(change.number for change in logs[2].since(seen[-1] if seen else 0))

    threads = [threading.Thread(target=write, args=(logs[place % 2], f"t{place}-")) for place in range(4)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    reader.join()
    assert sorted(numbers) == seen == list(range(1, 157))


PROCESS = """
import sys
from pathlib import Path
from index.change_log import open_log
from index.changes import PutLabel
from index.errors import LogMovedError
folder, url, name = sys.argv[1:]
log = open_log(Path(folder), url or None)
for number in range(15):
    while True:
        try:
            log.append([PutLabel(f"{name}{number}", "x")], after=log.last())
            break
        except LogMovedError:
            pass
log.close()
"""


def test_processes_that_write_at_once_lose_nothing(place: Place, opened: Opener) -> None:
    folder, url = place
    command = [sys.executable, "-c", PROCESS, str(folder), url or ""]
    processes = [subprocess.Popen([*command, name]) for name in "pqr"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    found = list(opened().since(0))
    assert [change.number for change in found] == list(range(1, 46))
    for name in "pqr":
        mine = [change.what for change in found if str(change.what).startswith(f"PutLabel(id='{name}")]
        assert mine == [PutLabel(f"{name}{number}", "x") for number in range(15)]


@pytest.mark.parametrize(
    "change",
    ["body = replace(body, 'x', 'y')", "label = 'other'", "kind = 'remove'", "at = at + 1", "key = NULL", "seal = 7"],
)
def test_a_row_that_is_not_what_was_written_is_named(place: Place, opened: Opener, change: str) -> None:
    log = opened()
    log.append([PutLabel("a", "x")])
    log.append([PutLabel("b", "x")])
    damage(place, f"UPDATE {{changes}} SET {change} WHERE number = 2 AND label = 'b' AND body LIKE '%x%'")  # noqa: S608
    if place[1] is not None:
        # Other tests have their logs in the same tables.
        pytest.importorskip("psycopg")
    for look in (lambda: list(log.since(0)), log.verify):
        with pytest.raises(BundleError, match="change 2 is damaged"):
            look()
    assert [change.number for change in log.since(0, 1)] == [1]


def test_a_kind_of_a_newer_version_is_refused(place: Place, opened: Opener) -> None:
    log = opened()
    log.append([PutLabel(f"unknown-{uuid4()}", "x")])
    damage(place, "UPDATE {changes} SET kind = 'merge', seal = NULL WHERE label LIKE 'unknown-%'")
    with pytest.raises(BundleError, match="change 1 is of unknown kind 'merge'"):
        list(log.since(0))
    damage(place, "DELETE FROM {changes} WHERE label LIKE 'unknown-%'")


def test_any_series_of_appends_is_the_list_that_python_keeps(opened: Opener) -> None:
    chooser = random.Random(3)
    logs, kept = [opened(), opened()], list[LabelChange]()
    for _ in range(40):
        some = [chooser.choice(CHANGES) for _ in range(chooser.choice((0, 1, 1, 2, 7)))]
        known = len(kept) - chooser.choice((0, 0, 0, 1))
        log = chooser.choice(logs)
        if some and 0 <= known < len(kept):
            with pytest.raises(LogMovedError):
                log.append(some, after=known)
            continue
        assert log.append(some, after=len(kept)) == list(range(len(kept) + 1, len(kept) + len(some) + 1))
        kept += some
        start = chooser.randrange(len(kept) + 1)
        assert [change.what for change in chooser.choice(logs).since(start)] == kept[start:]
