"""Opening a bundle: every changed byte, missing file and foreign version is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.bundle import MANIFEST, Bundle, read_manifest, verify_files
from index.collection import Collection, current_bundle
from index.errors import BundleError


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


def test_a_missing_or_shortened_file_is_refused_by_name(collection: Path) -> None:
    folder = current_bundle(collection)
    for name in read_manifest(folder).files:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1])
        with pytest.raises(BundleError, match=name):
            Bundle.open(folder)
        (folder / name).unlink()
        with pytest.raises(BundleError, match=f"{name}: is missing"):
            Bundle.open(folder)
        (folder / name).write_bytes(whole)
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
