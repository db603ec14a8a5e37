"""Opening a bundle: every changed byte, missing file and foreign version is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from index.addition import Addition
from index.bundle import MANIFEST, SEAL, Bundle, read_manifest, verify_files
from index.bundles import current_bundle
from index.collection import Collection
from index.errors import BundleError
from index.files import sha256_of
from index.label_filter import LabelFilter
from tests_support import write_corpus, write_lines
from training.export import export_run


def test_a_flipped_bit_in_any_file_is_refused_by_name(collection: Path) -> None:
    folder = current_bundle(collection)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            flipped = bytearray(whole)
            flipped[place] ^= 0x10
            path.write_bytes(flipped)
            with pytest.raises(BundleError, match=path.name.replace("sha256", "json")):
                Collection(collection)
        path.write_bytes(whole)
    Collection(collection).close()


def test_a_flipped_bit_in_a_manifest_value_is_refused(collection: Path) -> None:
    path = current_bundle(collection) / MANIFEST
    whole = path.read_bytes()
    place = whole.index(b'"temperature": 0.05') + len(b'"temperature": 0.0')
    path.write_bytes(whole[:place] + b"9" + whole[place + 1 :])
    with pytest.raises(BundleError, match=MANIFEST):
        Collection(collection)


def check_refused(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    """A bundle with this file damaged or missing is not opened, and the file is named; it is left as it was."""
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(damage(whole))
    with pytest.raises(BundleError, match=name):
        Bundle.open(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing"):
        Bundle.open(folder)
    (folder / name).write_bytes(whole)


def test_a_missing_or_shortened_file_is_refused_by_name(collection: Path) -> None:
    folder = current_bundle(collection)
    for name in read_manifest(folder).files:
        check_refused(folder, name, lambda whole: whole[:-1])
    verify_files(folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "damaged"),
        ("[]", "format None"),
        ("{", "damaged"),
        ('{"format": 1}', "does not match"),
        ('{"format": 2}', "format 2; this program reads format 1"),
    ],
)
def test_a_manifest_of_another_version_or_none_is_refused(collection: Path, text: str, reason: str) -> None:
    (current_bundle(collection) / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=reason):
        Collection(collection)


def test_a_bundle_without_fields_and_settings_of_before_opens_as_it_was(collection: Path) -> None:
    folder = current_bundle(collection)
    values = json.loads((folder / MANIFEST).read_text())
    assert not any(name.startswith(("labels.fields", "facets", "carried")) for name in values["files"])
    assert Addition.from_json(values.pop("addition")) == read_manifest(folder).addition
    (folder / MANIFEST).write_text(json.dumps(values))
    (folder / SEAL).write_text(sha256_of(folder / MANIFEST) + "\n")
    bundle = Bundle.open(folder)
    assert bundle.manifest.addition == Addition()
    assert bundle.labels.fields is None and bundle.labels.facets is None and bundle.labels[0].fields is None
    assert not len(bundle.carried.examples) and not len(bundle.carried.labels.rows)


def test_fields_of_labels_come_with_the_bundle_sealed_like_all_files(tiny_run: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    rows = [json.loads(line) for line in (corpus / "labels.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row["fields"] = {"even": place % 2 == 0, "number": place, "deep": {"not": "kept"}}
    write_lines(corpus / "labels.jsonl", rows)
    export_run(tiny_run, tmp_path / "collection", corpus=corpus, report=lambda line: None)
    folder = current_bundle(tmp_path / "collection")
    bundle = Bundle.open(folder)
    assert bundle.labels[7].fields == {"even": False, "number": 7}
    assert bundle.labels.matching(LabelFilter.parse({"even": True, "number": [1, 2, 4]})).tolist() == [2, 4]
    names = sorted(name for name in read_manifest(folder).files if name.startswith(("labels.fields", "facets")))
    assert len(names) == 6
    for name in names:
        check_refused(folder, name, lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]))
