"""An open collection beside others: it follows their changes and promoted bundles, seals what was added, and ends."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.bundle import Bundle, read_manifest, seal_files, write_manifest
from index.bundles import current_bundle, promote, rollback
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.collection import Collection
from index.collection_folder import log_of
from index.errors import InputError, LabelspaceError, UnknownLabelError
from index.layered import LayeredIndex


def ids(opened: Collection, text: str, k: int = 5) -> list[str]:
    snapshot = opened.snapshot
    return [snapshot.labels[row].id for row in snapshot.predict([text], k).rows[0].tolist() if row >= 0]


def copy_bundle(collection: Path, name: str, change: int = 0) -> Path:
    """The current bundle once more, as if made at a change."""
    source = current_bundle(collection)
    place = Path(shutil.copytree(source, source.with_name(name)))
    write_manifest(place, replace(read_manifest(place), bundle=name, change=change))
    return place


def wait_for(done: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_promoted_bundle_is_served_with_all_changes_and_so_is_a_rollback(collection: Path) -> None:
    first = current_bundle(collection).name
    copy_bundle(collection, "0002-b", change=0)
    with Collection(collection) as opened, Collection(collection) as other:
        opened.write([PutLabel("new", "zebra crossing"), RemoveLabel("s0")])
        assert not opened.follow_bundle()
        promote(collection, "0002-b")
        before = opened.snapshot
        assert opened.follow_bundle()
        assert not opened.follow_bundle()
        after = opened.snapshot
        assert (after.bundle.manifest.bundle, after.change) == ("0002-b", 2)
        assert ids(opened, "a zebra crossing")[0] == "new"
        assert "s0" not in ids(opened, "apple pie", 60)
        # Who still has the old state goes on with it.
        assert before.bundle.manifest.bundle == first
        assert (
            before.predict(["a zebra crossing"], 1).rows.tolist()
            == after.predict(["a zebra crossing"], 1).rows.tolist()
        )
        assert opened.write([PutLabel("newer", "yacht harbour")]) == [3]
        # One that has not followed yet takes the same changes into its own bundle.
        assert other.refresh() == 3
        assert other.snapshot.bundle.manifest.bundle == first
        rollback(collection)
        assert opened.follow_bundle()
        assert opened.snapshot.bundle.manifest.bundle == first
        assert ids(opened, "a yacht harbour")[0] == "newer"


def test_a_bundle_that_has_the_first_changes_is_given_only_the_rest(collection: Path) -> None:
    copy_bundle(collection, "0002-b", change=1)
    with Collection(collection) as opened:
        opened.write([PutLabel("inside", "zebra"), PutLabel("outside", "yacht")])
        promote(collection, "0002-b")
        assert opened.follow_bundle()
        assert (opened.snapshot.labels.find("inside"), opened.snapshot.labels.find("outside")) == (None, 40)
        assert opened.snapshot.change == 2


def test_writes_and_reads_go_on_while_a_bundle_is_opened(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_bundle(collection, "0002-b")
    open_bundle, begun, go_on = Bundle.open, threading.Event(), threading.Event()

    def slow(folder: Path) -> Bundle:
        begun.set()
        assert go_on.wait(20)
        return open_bundle(folder)

    with Collection(collection) as opened:
        promote(collection, "0002-b")
        monkeypatch.setattr(Bundle, "open", slow)
        following = threading.Thread(target=opened.follow_bundle)
        following.start()
        assert begun.wait(20)
        for number in range(5):
            opened.write([PutLabel(f"meanwhile{number}", f"xylophone {number}")])
        assert ids(opened, "xylophone 3")[0] == "meanwhile3"
        assert opened.snapshot.bundle.manifest.bundle != "0002-b"
        go_on.set()
        following.join()
        assert (opened.snapshot.bundle.manifest.bundle, opened.snapshot.change) == ("0002-b", 5)
        assert ids(opened, "xylophone 3")[0] == "meanwhile3"


def test_a_bundle_that_cannot_be_opened_is_told_once_and_tried_again(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copy_bundle(collection, "0002-b")
    with Collection(collection) as opened:
        first = opened.snapshot
        promote(collection, "0002-b")
        vectors = (place / "vectors.npy").read_bytes()
        (place / "vectors.npy").write_bytes(vectors[:-1])
        with pytest.raises(LabelspaceError, match=r"vectors\.npy"):
            opened.follow_bundle()
        assert opened.snapshot is first
        assert not opened.follow_bundle()
        monkeypatch.setattr("index.collection._TRY_AGAIN_SECONDS", 0.0)
        (place / "vectors.npy").write_bytes(vectors)
        assert not opened.follow_bundle()
        opened._not_opened = replace(opened._not_opened, again=0.0)
        assert opened.follow_bundle()
        assert opened.snapshot.bundle.manifest.bundle == "0002-b"


def test_a_damaged_bundle_that_stays_damaged_is_not_told_again(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.collection._TRY_AGAIN_SECONDS", 0.0)
    place = copy_bundle(collection, "0002-b")
    with Collection(collection) as opened:
        promote(collection, "0002-b")
        (place / "vectors.npy").unlink()
        with pytest.raises(LabelspaceError, match=r"vectors\.npy"):
            opened.follow_bundle()
        assert not opened.follow_bundle()
        assert ids(opened, "apple pie")[0] == "s0"


def test_who_asks_for_a_change_gets_it_as_soon_as_it_is_there(collection: Path) -> None:
    with Collection(collection) as reader, Collection(collection) as writer:
        assert reader.reached(0, 0.0)
        assert not reader.reached(1, 0.0)
        began = time.monotonic()
        assert not reader.reached(1, 0.1)
        assert 0.1 <= time.monotonic() - began < 5
        writer.write([PutLabel("a", "zebra")])
        assert reader.reached(1, 0.0)
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(reader.reached(3, 20)))
        waiting.start()
        writer.write([PutLabel("b", "yacht"), PutLabel("c", "walnut")])
        waiting.join()
        assert found == [True]
        assert reader.snapshot.labels.find("c") == 42


WRITER = """
import sys
from pathlib import Path
from index.changes import PutLabel
from index.collection import Collection
from index.errors import UnknownLabelError
from index.changes import RemoveLabel
folder, url, name = sys.argv[1:]
with Collection(Path(folder), log=url or None) as opened:
    for number in range(12):
        opened.write([PutLabel(f"{name}{number}", f"velvet {name} {number}")])
        opened.write([PutLabel("shared", f"tunnel {name} {number}")])
        try:
            opened.write([RemoveLabel("contested")])
            print(name, flush=True)
        except UnknownLabelError:
            pass
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_write_at_once_agree_on_every_change(
    collection: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else ""
    with Collection(collection, log=url or None) as opened:
        opened.write([PutLabel("contested", "umbrella")])
        command = [sys.executable, "-c", WRITER, str(collection), url]
        processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "pq"]
        said = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        # Only one of them removed what both wanted to remove.
        assert sorted("".join(said).split()) in (["p"], ["q"])
        assert opened.refresh() == 1 + 2 * 24 + 1
        labels = {label.id: label.text for _, label in opened.snapshot.labels.after(None)}
        for name in "pq":
            assert [labels[f"{name}{number}"] for number in range(12)] == [f"velvet {name} {n}" for n in range(12)]
        last = [change.what for change in opened._log.since(0) if "shared" in str(change.what)][-1]
        assert isinstance(last, PutLabel) and labels["shared"] == last.text
        assert "contested" not in labels
    assert log_of(collection).kind == kind


def test_a_write_that_was_overtaken_is_checked_again(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection(collection) as one, Collection(collection) as two:
        append, overtaking = one._log.append, [RemoveLabel("s3")]

        def late(changes: Any, after: int | None = None) -> list[int]:
            if overtaking:
                two.write([overtaking.pop()])
            return append(changes, after=after)

        monkeypatch.setattr(one._log, "append", late)
        with pytest.raises(UnknownLabelError, match="'s3'"):
            one.write([RemoveLabel("s3")])
        overtaking.append(RemoveLabel("s4"))
        assert one.write([RemoveLabel("s5")]) == [3]
        assert one.snapshot.labels.find("s4") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Feedback("a text", ("s0", "nobody")), "'nobody': there is no such label"),
        (Feedback("a text", wrong=("nobody",)), "'nobody': there is no such label"),
        (Feedback("a text"), "names no label"),
        (Feedback(" ", ("s0",)), "says nothing"),
        (Feedback("", ("s0",), fields={"type": None}), "says nothing"),
        (Feedback("a text", ("s0", "s1"), ("s1",)), "'s1' is both right and wrong"),
        (Feedback("half \ud800", ("s0",)), "surrogate"),
        (Feedback("a text", ("s0",), fields={"colour": "red"}), "field 'colour' is not read"),
        (Feedback("a text", ("",)), "blank"),
        (RemoveExample("a text", "nobody"), "'nobody': there is no such label"),
        (RemoveExample(""), "says nothing"),
        (RemoveExample("half \ud800"), "surrogate"),
        (RemoveLabel("s9"), "'s9': there is no such label"),
    ],
)
def test_what_makes_no_sense_is_refused_with_all_that_came_with_it(
    collection: Path, change: LabelChange, reason: str
) -> None:
    with Collection(collection) as opened:
        with pytest.raises(InputError, match=reason):
            opened.write([PutLabel("fine", "fine"), RemoveLabel("s9"), change])
        assert (opened.snapshot.change, opened.refresh()) == (0, 0)


def test_an_example_of_another_model_can_be_removed_by_all_that_it_was_known_by(collection: Path) -> None:
    with Collection(collection) as opened:
        assert opened.write([RemoveExample("a text", fields={"colour": "red", "shelf": [7, None]})]) == [1]
    with Collection(collection) as again:
        assert again.snapshot.change == 1


def test_a_change_may_be_about_what_came_with_it(collection: Path) -> None:
    with Collection(collection) as opened:
        changes: list[LabelChange] = [
            PutLabel("new", "zebra"),
            Feedback("a text", ("new",)),
            RemoveExample("a text", "new"),
        ]
        assert opened.write(changes) == [1, 2, 3]
        with pytest.raises(UnknownLabelError):
            opened.write([RemoveLabel("new"), Feedback("a text", ("new",))])


def test_what_was_stored_is_an_answer_even_if_the_log_cannot_be_read_any_more(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection(collection) as opened:
        append = opened._log.append

        def fail(*ignored: object) -> Any:
            raise LabelspaceError("lost")

        def last_act(changes: Any, after: int | None = None) -> list[int]:
            numbers = append(changes, after=after)
            monkeypatch.setattr(opened._log, "since", fail)
            return numbers

        monkeypatch.setattr(opened._log, "append", last_act)
        assert opened.write([PutLabel("new", "zebra", ("one",))]) == [1]
        assert ids(opened, "zebra")[0] == "new"


def test_what_was_added_is_sealed_beside_readers_and_writers(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealing, sealed = LayeredIndex.sealed, threading.Event()
    begun = threading.Event()

    def slow(self: LayeredIndex, **threads: int) -> Any:
        begun.set()
        assert sealed.wait(20)
        return sealing(self, **threads)

    monkeypatch.setattr("index.collection._BEFORE_SEALING_SECONDS", 0.0)
    monkeypatch.setattr(LayeredIndex, "sealed", slow)
    monkeypatch.setattr(LayeredIndex, "wants_sealing", lambda self: len(self.delta_rows) == 3 and not sealed.is_set())
    with Collection(collection) as opened:
        for number in range(3):
            opened.write([PutLabel(f"n{number}", f"zebra {number}")])
        assert begun.wait(20)
        opened.write([PutLabel("later", "yacht harbour"), PutLabel("n1", "velvet umbrella"), RemoveLabel("n2")])
        assert ids(opened, "velvet umbrella")[0] == "n1"
        wanted = opened.snapshot.index.search(query := opened.snapshot.bundle.queries.texts(["zebra"]), 60)
        served = opened.snapshot
        sealed.set()
        wait_for(lambda: opened.snapshot is not served)
        found = opened.snapshot.index.search(query, 60)
        assert found.rows.tolist() == wanted.rows.tolist()
        assert np.allclose(found.scores[found.rows >= 0], wanted.scores[wanted.rows >= 0], atol=1e-6)
        assert opened.snapshot.change == served.change == 4 + 2
        wait_for(lambda: opened._sealing is None)
    assert not [thread for thread in threading.enumerate() if thread.name == "sealing"]


def test_what_cannot_be_sealed_is_told_once_and_served_as_it_is(
    collection: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("index.collection._BEFORE_SEALING_SECONDS", 0.0)
    monkeypatch.setattr(LayeredIndex, "wants_sealing", lambda self: True)
    monkeypatch.setattr(LayeredIndex, "sealed", lambda self, **threads: 1 // 0)
    with Collection(collection) as opened:
        for number in range(5):
            opened.write([PutLabel(f"n{number}", f"zebra {number}")])
        thread = opened._sealing
        assert thread is not None
        thread.join()
        assert ids(opened, "zebra 3")[0] == "n3"
    assert len([record for record in caplog.records if "cannot be indexed" in record.getMessage()]) == 1


def test_what_was_sealed_for_another_bundle_is_thrown_away(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_bundle(collection, "0002-b")
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("index.collection._BEFORE_SEALING_SECONDS", 0.0)
    monkeypatch.setattr(LayeredIndex, "wants_sealing", lambda self: not begun.is_set())

    def slow(self: LayeredIndex, **threads: int) -> str:
        begun.set()
        assert go_on.wait(20)
        return "of the old bundle"

    monkeypatch.setattr(LayeredIndex, "sealed", slow)
    with Collection(collection) as opened:
        opened.write([PutLabel("new", "zebra")])
        assert begun.wait(20)
        promote(collection, "0002-b")
        assert opened.follow_bundle()
        go_on.set()
        wait_for(lambda: opened._sealing is None)
        assert opened.snapshot.bundle.manifest.bundle == "0002-b"
        assert ids(opened, "zebra")[0] == "new"


def test_long_logs_are_replayed_in_blocks_with_the_same_end(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[LabelChange] = []
    for number in range(30):
        changes += [PutLabel(f"n{number % 7}", f"zebra {number}", (f"example {number}",)), PutLabel("s3", f"{number}")]
        if number % 5 == 0:
            changes.append(RemoveLabel(f"n{number % 7}"))
    with Collection(collection) as opened:
        opened.write(changes)
        wanted = opened.snapshot.predict(["zebra", "example 29", "3"], 60)
    for block, long in ((1, 3), (4, 1), (1000, 10), (1000, 1000)):
        monkeypatch.setattr("index.collection._BLOCK", block)
        monkeypatch.setattr("index.collection._LONG", long)
        with Collection(collection) as again:
            found = again.snapshot.predict(["zebra", "example 29", "3"], 60)
            assert found.rows.tolist() == wanted.rows.tolist()
            assert np.allclose(found.scores[found.rows >= 0], wanted.scores[wanted.rows >= 0], atol=1e-6)
        assert gc.isenabled()


def test_seals_of_a_copied_bundle_are_those_of_its_files(collection: Path) -> None:
    place = copy_bundle(collection, "0002-b")
    names = {name: seal for name, seal in seal_files(place).items() if not name.startswith("manifest")}
    assert read_manifest(place).files == names
