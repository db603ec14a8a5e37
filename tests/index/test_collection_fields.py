"""Labels with fields: how they are checked, kept and encoded, and logs that meet a model of other fields."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.change_log import open_log
from index.changes import Change, PutLabel
from index.collection import Collection
from index.errors import InputError
from index.features import FeatureSpec
from index.field_spec import FieldSpec
from index.fields import Fields
from index.label_filter import LabelFilter
from index.snapshot import Snapshot, says_something
from snapshot_support import placed
from tests_support import KINDS


@pytest.fixture
def folder(field_collection: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(field_collection, tmp_path / "own"))


@pytest.fixture
def opened(folder: Path) -> Iterator[Collection]:
    with Collection(folder) as collection:
        yield collection


def vector_of(snapshot: Snapshot, label: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    row = snapshot.labels.find(label)
    (place,) = np.flatnonzero(snapshot.index.delta_rows == row)
    found: np.ndarray[Any, np.dtype[np.float32]] = snapshot.index.delta_vectors[place]
    return found


def best(snapshot: Snapshot, text: str, fields: Fields) -> str:
    return snapshot.labels[int(snapshot.predict([text], 1, [fields]).rows[0, 0])].id


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {"type": "größe", "lang": ["en", "fr"]}),
        ("a label", {"type": "book"}),
        ("日本 🚲", {"type": ["book", 3, 0.5, True], "lang": None}),
        ("a label", {"type": []}),
        ("a label", None),
    ],
)
def test_the_vector_of_a_label_is_its_text_and_fields(opened: Collection, text: str, fields: Fields | None) -> None:
    opened.write([PutLabel("other", "beside", fields={"lang": "fr"}), PutLabel("new", text, fields=fields)])
    snapshot = opened.snapshot
    wanted = placed(snapshot.bundle, snapshot.bundle.label_texts.texts([text], [fields])[0])
    assert np.abs(vector_of(snapshot, "new") - wanted).max() < 1e-5
    assert snapshot.labels[8].fields == {"lang": "fr"}
    assert snapshot.labels[9].fields == fields
    if fields and fields["type"]:
        bare = placed(snapshot.bundle, snapshot.bundle.label_texts.texts([text])[0])
        assert np.abs(vector_of(snapshot, "new") - bare).max() > 1e-3


def test_a_label_of_fields_alone_is_found_by_them_also_after_reopening_and_without_them_no_more(folder: Path) -> None:
    asked = {"type": "of a kind of its own"}
    with Collection(folder) as opened:
        assert best(opened.snapshot, "", asked) != "new"
        opened.write([PutLabel("new", fields=asked)])
        assert best(opened.snapshot, "", asked) == "new"
    with Collection(folder) as again:
        assert best(again.snapshot, "", asked) == "new"
        with_fields = vector_of(again.snapshot, "new")
        again.write([PutLabel("new", "zebra")])
        alone = placed(again.snapshot.bundle, again.snapshot.bundle.label_texts.texts(["zebra"])[0])
        assert np.abs(vector_of(again.snapshot, "new") - alone).max() < 1e-5
        assert np.abs(with_fields - alone).max() > 1e-3
        assert again.snapshot.labels[8].fields is None


def test_a_bundle_label_keeps_what_training_learned_of_it_beside_new_fields(opened: Collection) -> None:
    opened.write([PutLabel("1-fr", "new", fields={"type": "film"})])
    bundle = opened.snapshot.bundle
    row = opened.snapshot.labels.find("1-fr")
    assert row is not None
    old, new = bundle.label_texts.texts(["label 1-fr"])[0], bundle.label_texts.texts(["new"], [{"type": "film"}])[0]
    wanted = bundle.sums[row].astype(np.float64) - old + new
    assert np.abs(vector_of(opened.snapshot, "1-fr") - wanted / np.linalg.norm(wanted)).max() < 1e-5


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"colour": {"red": 1}}, "label 'new': field 'colour' must be a string, a number"),
        ({"type": "book", "colour": [None]}, "label 'new': field 'colour' must be a string, a number"),
        ({"type": "book", "colour": float("inf")}, "label 'new': field 'colour' is inf"),
        ({"type": {"deep": 1}}, "label 'new': field 'type' must be a string"),
        ({"type": float("nan")}, "label 'new': field 'type' is nan"),
        ({"type": "\ud800"}, "label 'new': field 'type' is not valid Unicode"),
        ({"type": ["x"] * 1001}, "label 'new': field 'type' has 1001 values"),
        ({"type": None, "lang": []}, "give it a text, fields, examples or a vector"),
    ],
)
def test_fields_that_make_no_sense_are_refused(opened: Collection, fields: Fields, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        opened.write([PutLabel("fine", "fine"), PutLabel("new", fields=fields)])
    assert opened.snapshot.change == 0


def of_other_fields(snapshot: Snapshot, *fields: FieldSpec, crosses: tuple[tuple[str, ...], ...] = ()) -> Snapshot:
    """The same as if its model read these fields; for what is looked at before anything is encoded."""
    features = snapshot.bundle.manifest.features
    assert isinstance(features, FeatureSpec)
    manifest = replace(snapshot.bundle.manifest, features=replace(features, fields=fields, crosses=crosses))
    return replace(snapshot, bundle=replace(snapshot.bundle, manifest=manifest))


def test_each_tower_takes_its_own_fields(opened: Collection) -> None:
    split = of_other_fields(opened.snapshot, FieldSpec("lang", tower="label"), FieldSpec("type", tower="query"))
    split.check_fields({"type": "book"})
    split.check_fields({"lang": "en"}, "label")
    with pytest.raises(InputError, match="field 'lang'"):
        split.check_fields({"lang": "en"})
    # A label may have it, to be filtered by: then any value that nobody reads will do.
    split.check_fields({"type": ["book"] * 1000}, "label")
    with pytest.raises(InputError, match="field 'type'"):
        split.check_fields({"type": {"deep": 1}}, "label")


def test_what_the_log_cannot_hold_is_refused(opened: Collection) -> None:
    opened.snapshot = of_other_fields(opened.snapshot, FieldSpec("type", kind="text"))
    with pytest.raises(InputError, match="not valid Unicode"):
        opened.write([PutLabel("new", fields={"type": "half a pair \ud800"})])


def test_too_many_combinations_of_a_cross_are_refused_and_left_out_of_a_replay(opened: Collection) -> None:
    crossed = of_other_fields(opened.snapshot, FieldSpec("lang"), FieldSpec("type"), crosses=(("lang", "type"),))
    many = [str(value) for value in range(40)]
    with pytest.raises(InputError, match="1600 combinations"):
        crossed.check_fields({"lang": many, "type": many}, "label")
    after = crossed.after([Change(1, PutLabel("new", "x", fields={"lang": many, "type": many}))])
    wanted = placed(after.bundle, after.bundle.label_texts.texts(["x"], [{"lang": many}])[0])
    assert np.abs(vector_of(after, "new") - wanted).max() < 1e-5


def test_a_log_replays_under_a_model_that_reads_other_fields(collection: Path, folder: Path) -> None:
    fields = {"type": KINDS[1]}
    with Collection(folder) as opened:
        opened.write([PutLabel("both", "zebra crossing", fields=fields), PutLabel("fields", fields=fields)])
    shutil.copy(folder / "changes.sqlite", collection / "changes.sqlite")
    with Collection(collection) as other:
        snapshot = other.snapshot
        alone = placed(snapshot.bundle, snapshot.bundle.label_texts.texts(["zebra crossing"])[0])
        assert np.abs(vector_of(snapshot, "both") - alone).max() < 1e-5
        rows = snapshot.predict(["zebra crossing"], 100).rows[0]
        # Nothing is known here of the one that was put by its fields alone: it is there, and never predicted.
        assert (snapshot.labels.find("both"), snapshot.labels.find("fields")) == (40, 41)
        assert 40 in rows and 41 not in rows
        other.write([PutLabel("fields", "umbrella stand")])
        assert other.snapshot.predict(["umbrella stand"], 1).rows[0, 0] == 41


def test_fields_that_the_model_does_not_read_are_kept_and_filtered_by(folder: Path) -> None:
    put = PutLabel("new", "x", fields={"type": "film", "colour": ["red", 1], "asked": True})
    with Collection(folder) as opened:
        opened.write([put, PutLabel("0-en", "label 0-en", fields={"colour": "red"})])
        bundle = opened.snapshot.bundle
        wanted = placed(bundle, bundle.label_texts.texts(["x"], [{"type": "film"}])[0])
        assert np.abs(vector_of(opened.snapshot, "new") - wanted).max() < 1e-5
    with Collection(folder) as again:
        snapshot = again.snapshot
        assert snapshot.labels[8].fields == put.fields
        for asked, rows in (
            ({"colour": "red"}, {0, 8}), ({"colour": [1, 2]}, {8}), ({"colour": "1"}, set()), ({"asked": True}, {8}),
            ({"asked": 1}, set()), ({"colour": "red", "type": "film"}, {8}), ({"type": "book"}, set()),
        ):  # fmt: skip
            found = snapshot.predict(["the same for all"], 100, only=LabelFilter.parse(asked)).rows[0]
            assert {row for row in found.tolist() if row >= 0} == rows


def test_of_a_label_whose_fields_are_partly_read_the_rest_counts(opened: Collection) -> None:
    put = PutLabel("new", "x", fields={"type": "film", "gone": "y", "lang": {"of": "another kind"}})
    after = opened.snapshot.after([Change(1, put)])
    wanted = placed(after.bundle, after.bundle.label_texts.texts(["x"], [{"type": "film"}])[0])
    assert np.abs(vector_of(after, "new") - wanted).max() < 1e-5


def test_a_vector_of_a_model_with_another_dim_counts_for_nothing(folder: Path) -> None:
    log = open_log(folder)
    log.append([PutLabel("a", "zebra", vector=(1.0, 2.0)), PutLabel("b", vector=(1.0, 2.0))])
    log.close()
    with Collection(folder) as opened:
        snapshot = opened.snapshot
        alone = placed(snapshot.bundle, snapshot.bundle.label_texts.texts(["zebra"])[0])
        assert np.abs(vector_of(snapshot, "a") - alone).max() < 1e-5
        assert 9 not in snapshot.predict(["zebra"], 100).rows


@pytest.mark.parametrize(
    ("text", "fields", "wanted"),
    [("", None, False), (" \u00a0\n", {}, False), ("", {"a": None, "b": [], "c": ()}, False), ("x", None, True),
     ("", {"a": None, "b": [None]}, True), ("", {"a": 0}, True), ("", {"a": False}, True), ("", {"a": ""}, True)],
)  # fmt: skip
def test_what_says_something(text: str, fields: Fields | None, wanted: bool) -> None:
    assert says_something(text, fields) == wanted
