"""A collection through changes, restarts and kills, against a brute-force model of what should be there."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.bundles import current_bundle
from index.changes import LabelChange, PutLabel, RemoveLabel
from index.collection import Collection
from index.collection_folder import create_collection
from index.errors import BundleError, InputError, LabelspaceError, UnknownLabelError
from index.label_vector import CENTROID_PRIOR
from index.log_sqlite import SqliteLog

WORDS = ("zebra", "yacht", "xylophone", "walnut", "velvet", "umbrella", "tunnel", "saffron")


def ids(opened: Collection, text: str, k: int = 5) -> list[str]:
    snapshot = opened.snapshot
    return [snapshot.labels[row].id for row in snapshot.predict([text], k).rows[0].tolist() if row >= 0]


def test_a_label_added_by_text_or_by_examples_is_predicted_at_once_and_after_reopening(collection: Path) -> None:
    with Collection(collection) as opened:
        before = opened.snapshot
        assert opened.write([PutLabel("new1", "zebra crossing"), PutLabel("new2", "", ("saffron tunnel",))]) == [1, 2]
        assert ids(opened, "a zebra crossing")[0] == "new1"
        assert ids(opened, "the saffron tunnel")[0] == "new2"
        assert len(opened.snapshot.labels) == len(before.labels) + 2
        assert len(before.labels) == 40
        answers = opened.snapshot.predict(["zebra", "apple pie"], 50)
    with Collection(collection) as again:
        assert again.snapshot.change == 2
        replayed = again.snapshot.predict(["zebra", "apple pie"], 50)
        assert replayed.rows.tolist() == answers.rows.tolist()
        assert np.allclose(replayed.scores[answers.rows >= 0], answers.scores[answers.rows >= 0], atol=1e-6)


def test_a_removed_label_is_gone_for_good_and_may_come_back_as_another(collection: Path) -> None:
    with Collection(collection) as opened:
        assert ids(opened, "apple pie")[0] == "s0"
        opened.write([RemoveLabel("s0")])
        assert "s0" not in ids(opened, "apple pie", 40)
        assert opened.snapshot.labels.find("s0") is None
        with pytest.raises(UnknownLabelError, match="'s0'"):
            opened.write([RemoveLabel("s0")])
        opened.write([PutLabel("s0", "zebra")])
        assert ids(opened, "zebra")[0] == "s0"
        assert opened.snapshot.labels.find("s0") == 40
    with Collection(collection) as again:
        assert ids(again, "zebra")[0] == "s0"
        assert ids(again, "apple pie")[0] != "s0"


def test_a_new_text_keeps_what_training_learned_of_a_label(collection: Path) -> None:
    with Collection(collection) as opened:
        opened.write([PutLabel("s1", "velocipede mending")])
        assert opened.snapshot.labels[1].text == "velocipede mending"
        assert ids(opened, "velocipede mending")[0] == "s1"
        bundle = opened.snapshot.bundle
        old, new = bundle.label_texts.texts(["bicycle repair", "velocipede mending"]).astype(np.float64)
        wanted = bundle.sums[1] - old + new
        (row,) = np.flatnonzero(opened.snapshot.index.delta_rows == 1)
        assert np.abs(opened.snapshot.index.delta_vectors[row] - wanted / np.linalg.norm(wanted)).max() < 1e-5
        assert np.abs(wanted - new).max() > 1e-3
        opened.write([PutLabel("s1", "bicycle repair")])
        (row,) = np.flatnonzero(opened.snapshot.index.delta_rows == 1)
        original = opened.snapshot.bundle.sums[1] / np.linalg.norm(opened.snapshot.bundle.sums[1])
        assert np.abs(opened.snapshot.index.delta_vectors[row] - original).max() < 1e-5


def test_the_vector_of_a_new_label_is_the_formula(collection: Path) -> None:
    examples = ("saffron tunnel", "a velvet umbrella", "xylophone")
    with Collection(collection) as opened:
        opened.write([PutLabel("new", "walnut", examples), PutLabel("given", vector=tuple(range(1, 33)))])
        bundle = opened.snapshot.bundle
        centroid = bundle.queries.texts(examples).astype(np.float64).mean(axis=0)
        assert bundle.label_map is not None
        text, centroid = (
            vector @ bundle.label_map.astype(np.float64)
            for vector in (bundle.label_texts.texts(["walnut"])[0].astype(np.float64), centroid)
        )
        centroid /= np.linalg.norm(centroid)
        wanted = text / np.linalg.norm(text) + 3 / (3 + CENTROID_PRIOR) * centroid
        found = {int(row): vector for row, vector in zip(
            opened.snapshot.index.delta_rows, opened.snapshot.index.delta_vectors, strict=True)}  # fmt: skip
        assert np.abs(found[40] - wanted / np.linalg.norm(wanted)).max() < 1e-5
        given = np.arange(1, 33) / np.linalg.norm(np.arange(1, 33))
        assert np.abs(found[41] - given).max() < 1e-6


def test_a_walk_goes_on_behind_a_label_that_was_removed_and_put_again(collection: Path) -> None:
    with Collection(collection) as opened:
        opened.write([RemoveLabel("s5"), PutLabel("s5", "zebra")])
        rest = [label.id for _, label in opened.snapshot.labels.after("s5")]
        assert rest == [*(f"s{number}" for number in range(6, 40)), "s5"]
        with pytest.raises(InputError, match="names no label"):
            opened.snapshot.labels.after("nobody")


def test_an_id_that_is_no_unicode_is_simply_not_there(collection: Path) -> None:
    with Collection(collection) as opened:
        assert opened.snapshot.labels.find("\udcff") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (PutLabel("", "x"), "blank"),
        (PutLabel("  ", "x"), "blank"),
        (PutLabel("a\nb", "x"), "control"),
        (PutLabel("x" * 513, "x"), "513 bytes"),
        (PutLabel("\ud800", "x"), "surrogate"),
        (PutLabel("a", "\ud800"), "surrogate"),
        (PutLabel("a"), "text, fields, examples or a vector"),
        (PutLabel("a", " "), "text, fields, examples or a vector"),
        (PutLabel("a", fields={}), "text, fields, examples or a vector"),
        (PutLabel("a", "x", fields={"type": {"deep": 1}}), "'a': field 'type'"),
        (PutLabel("a", fields={"shelf": 7}), "text, fields, examples or a vector"),
        (PutLabel("a", "x", ("",)), "example is blank"),
        (PutLabel("a", vector=(1.0, 2.0)), "has 2 numbers; this model's have 32"),
        (PutLabel("a", vector=(0.0,) * 32), "zero"),
        (PutLabel("a", vector=(float("nan"),) * 32), "not finite"),
        (PutLabel("a", vector=(float("inf"),) * 32), "not finite"),
        (RemoveLabel("nobody"), "no such label"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_all_that_came_with_it(
    collection: Path, change: LabelChange, reason: str
) -> None:
    with Collection(collection) as opened:
        with pytest.raises(InputError, match=reason):
            opened.write([PutLabel("fine", "fine"), change])
        assert opened.snapshot.change == 0
        assert opened.snapshot.labels.find("fine") is None


def model_after(changes: list[LabelChange]) -> dict[str, str]:
    live = {f"s{place}": "" for place in range(40)}
    for change in changes:
        match change:
            case PutLabel(id=label, text=text):
                live[label] = text
            case RemoveLabel(id=label):
                live.pop(label, None)
    return live


@pytest.mark.parametrize("seed", range(4))
def test_any_series_of_changes_and_restarts_serves_exactly_the_live_labels(collection: Path, seed: int) -> None:
    chooser = random.Random(seed)
    done: list[LabelChange] = []
    opened = Collection(collection)
    for _ in range(25):
        live = sorted(model_after(done))
        name = chooser.choice([*live, *(f"n{number}" for number in range(8))])
        change: LabelChange = PutLabel(name, " ".join(chooser.sample(WORDS, 2)))
        if name in live and chooser.random() < 0.5:
            change = RemoveLabel(name)
        opened.write([change])
        done.append(change)
        if chooser.random() < 0.2:
            opened.close()
            opened = Collection(collection)
        assert_serves(opened, model_after(done))
    opened.close()


def assert_serves(opened: Collection, live: dict[str, str]) -> None:
    """The ids that are live, and for a query the order that float64 products of their vectors give."""
    snapshot = opened.snapshot
    assert {label.id for _, label in snapshot.labels.after(None)} == set(live)
    assert len(snapshot.labels) == len(live) == len(snapshot.index)
    query = snapshot.bundle.queries.texts(["a velvet tunnel for the zebra"])
    found = snapshot.index.search(query, 100)
    rows = [row for row in found.rows[0].tolist() if row >= 0]
    assert {snapshot.labels[row].id for row in rows} == set(live)
    vectors = all_vectors(opened)
    products = sorted((float(query[0].astype(np.float64) @ vectors[row]) for row in rows), reverse=True)
    assert found.scores[0][: len(rows)].tolist() == pytest.approx(products, abs=1e-5)


def all_vectors(opened: Collection) -> dict[int, NDArray[np.float32]]:
    snapshot = opened.snapshot
    sums = snapshot.bundle.sums
    vectors = {row: sums[row] / np.linalg.norm(sums[row]) for row in range(len(sums))}
    vectors.update(zip(snapshot.index.delta_rows.tolist(), snapshot.index.delta_vectors, strict=True))
    return vectors


def test_two_processes_on_one_collection_follow_each_other(collection: Path) -> None:
    with Collection(collection) as one, Collection(collection) as two:
        one.write([PutLabel("from-one", "zebra")])
        assert two.snapshot.labels.find("from-one") is None
        assert two.refresh() == 1
        assert ids(two, "zebra")[0] == "from-one"
        two.write([RemoveLabel("from-one")])
        with pytest.raises(UnknownLabelError):
            one.write([RemoveLabel("from-one")])
        assert one.snapshot.change == two.snapshot.change == 2


def test_the_folder_may_be_moved(collection: Path, tmp_path: Path) -> None:
    with Collection(collection) as opened:
        opened.write([PutLabel("new", "zebra")])
    moved = Path(shutil.move(collection, tmp_path / "elsewhere"))
    with Collection(moved) as again:
        assert ids(again, "zebra")[0] == "new"


def test_folders_that_are_no_collection_are_refused(tmp_path: Path, collection: Path) -> None:
    with pytest.raises(BundleError, match="no collection here"):
        Collection(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="not empty and not a collection"):
        create_collection(tmp_path / "full")
    create_collection(tmp_path / "empty")
    create_collection(tmp_path / "empty")
    with pytest.raises(BundleError, match="no current bundle"):
        Collection(tmp_path / "empty")
    for text, reason in (('{"format": 7}', "format 7"), ("{", "damaged"), ("[]", "damaged")):
        (collection / "collection.json").write_text(text)
        with pytest.raises(BundleError, match=reason):
            Collection(collection)


@pytest.mark.parametrize("name", ["", "0009-missing", "../../etc", "..", "/"])
def test_a_current_that_names_no_bundle_is_refused(collection: Path, name: str) -> None:
    (collection / "current").write_text(name)
    with pytest.raises(BundleError, match="current"):
        current_bundle(collection)


def test_a_log_that_cannot_be_written_loses_nothing_and_says_so(collection: Path) -> None:
    with Collection(collection) as opened:
        opened.write([PutLabel("first", "zebra")])
        log = opened._log
        assert isinstance(log, SqliteLog)
        log._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(LabelspaceError, match="was not stored"):
            opened.write([PutLabel("second", "yacht")])
        assert opened.snapshot.labels.find("second") is None
        assert ids(opened, "zebra")[0] == "first"


READER = """
import os, sys
from pathlib import Path
from index.changes import PutLabel
from index.collection import Collection
from index.errors import LabelspaceError
# What is imported late may be out of reach for a user without rights.
with Collection(Path(sys.argv[2])) as other:
    other.write([PutLabel("new", "zebra")])
    other.snapshot.labels.find("newer")
if os.geteuid() == 0:
    # Nothing is forbidden to root.
    os.setgid(65534)
    os.setuid(65534)
with Collection(Path(sys.argv[1])) as opened:
    print(opened.read_only, opened.snapshot.labels.find("new"))
    try:
        opened.write([PutLabel("newer", "yacht")])
    except LabelspaceError as error:
        print(error)
"""


@pytest.mark.parametrize("written", [True, False])
def test_a_collection_on_read_only_media_is_opened_and_not_written(collection: Path, written: bool) -> None:
    with tempfile.TemporaryDirectory() as public:
        place = Path(shutil.copytree(collection, Path(public) / "collection"))
        if written:
            with Collection(place) as opened:
                opened.write([PutLabel("new", "zebra")])
        paths = [Path(public), place, *place.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", READER, str(place), str(collection)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for path in paths:
            path.chmod(0o755)
    found = f"True {40 if written else None}"
    refusal = f"{place / 'changes.sqlite'}: cannot be written here; nothing was changed"
    assert (done.stdout.splitlines(), done.stderr) == ([found, refusal], "")
