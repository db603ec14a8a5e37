"""What is said of a collection, against its files and its changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from index.bundle import read_manifest
from index.bundles import current_bundle
from index.changes import LabelChange, PutLabel, RemoveLabel
from index.collection import Collection
from index.collection_folder import create_collection
from index.collection_report import report_collection
from index.errors import BundleError


def test_a_bundle_is_its_manifest_and_its_files(tiny_collection: Path) -> None:
    report = report_collection(tiny_collection)
    (bundle,) = report.bundles
    folder = current_bundle(tiny_collection)
    manifest = read_manifest(folder)
    assert (bundle.bundle, bundle.current, bundle.created) == (folder.name, True, manifest.created)
    assert (bundle.labels, bundle.examples, bundle.dim) == (40, manifest.examples, 32)
    assert (bundle.index, bundle.memory) == (manifest.index, manifest.memory)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert dict(bundle.files) == sizes
    assert bundle.bytes == sum(sizes.values())
    assert bundle.features["rows"] == 4096
    assert (report.live, report.changes, report.added, report.edited, report.removed) == (40, 0, 0, 0, 0)
    assert json.loads(json.dumps(report.to_json()))["kind"] == "collection"


def test_changes_are_counted_by_what_became_of_each_label(collection: Path) -> None:
    changes: list[LabelChange] = [
        PutLabel("new", "a new one"), PutLabel("new", "put again"), PutLabel("地図", "x"), RemoveLabel("地図"),
        PutLabel("s0", "changed"), PutLabel("s1", "changed, and removed"), RemoveLabel("s1"), RemoveLabel("s2"),
        PutLabel("s2", "removed, and new under the old id"),
    ]  # fmt: skip
    with Collection(collection) as opened:
        opened.write(changes)
    report = report_collection(collection)
    assert (report.changes, report.added, report.edited, report.removed) == (9, 2, 1, 2)
    assert report.live == 40 + 2 - 2


def test_older_bundles_are_listed_and_one_that_is_being_written_is_not(collection: Path) -> None:
    first = current_bundle(collection)
    shutil.copytree(first, first.with_name("0002-copy"))
    shutil.copytree(first, first.with_name(".0003-half.x.part"))
    (collection / "current").write_text("0002-copy\n")
    report = report_collection(collection)
    assert [one.current for one in report.bundles] == [False, True]
    assert report.bundles[0].files == report.bundles[1].files
    (first / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match=first.name):
        report_collection(collection)


def test_what_is_no_collection_or_damaged_is_named(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no collection here"):
        report_collection(tmp_path / "nowhere")
    create_collection(tmp_path / "empty")
    with pytest.raises(BundleError, match="has no current bundle"):
        report_collection(tmp_path / "empty")
    vectors = current_bundle(collection) / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BundleError, match=r"vectors\.npy: its checksum differs"):
        report_collection(collection)
