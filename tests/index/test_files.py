"""Files and folders appear whole or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from index.errors import LabelspaceError
from index.files import new_folder, replacing, sha256_of, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "note.txt"
    write_text(path, "one")
    write_text(path, "größe")
    assert path.read_text(encoding="utf-8") == "größe"
    write_json(path, {"a": [1, "ü"]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1,\n  "ü"\n ]\n}\n'
    assert [item.name for item in path.parent.iterdir()] == ["note.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("oops")])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")

    def half() -> None:
        with replacing(path) as beside:
            beside.write_text("ha")
            raise error

    with pytest.raises((LabelspaceError, ValueError)):
        half()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle") as beside:
        (beside / "a").write_text("1")
        assert not (tmp_path / "bundle").exists()
    assert (tmp_path / "bundle" / "a").read_text() == "1"
    with pytest.raises(LabelspaceError, match="already"), new_folder(tmp_path / "bundle"):
        pass

    def half() -> None:
        with new_folder(tmp_path / "other") as beside:
            (beside / "a").write_text("1")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(LabelspaceError, match="nothing was changed"):
        half()
    assert [item.name for item in tmp_path.iterdir()] == ["bundle"]


def test_what_a_killed_process_left_is_cleared_and_what_another_writes_is_not(tmp_path: Path) -> None:
    for name, age in ((".bundle.old.part", 7200), (".bundle.new.part", 10), (".elsewhere.old.part", 7200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (tmp_path.stat().st_mtime - age,) * 2)
    with new_folder(tmp_path / "bundle"):
        pass
    assert sorted(item.name for item in tmp_path.iterdir()) == [".bundle.new.part", ".elsewhere.old.part", "bundle"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (tmp_path / "file" / "note.txt", tmp_path / "file" / "deep" / "note.txt"):
        with pytest.raises(LabelspaceError, match=r"note\.txt: could not be written"):
            write_text(attempt, "x")


def test_checksums_are_sha256(tmp_path: Path) -> None:
    for data in (b"", b"abc", os.urandom(3_000_000)):
        (tmp_path / "data").write_bytes(data)
        assert sha256_of(tmp_path / "data") == hashlib.sha256(data).hexdigest()
