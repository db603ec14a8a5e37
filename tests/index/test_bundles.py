"""The bundles of a collection: what is current and was before, also when a process is killed in between."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from index import bundles, files
from index.bundle import read_manifest
from index.bundles import add_bundle, bundle_names, current_bundle, list_bundles, promote, prune, rollback, verify
from index.changes import PutLabel
from index.collection import Collection
from index.errors import BundleError, ConflictError, InputError, LabelspaceError


def copies(collection: Path, *names: str) -> str:
    """Copies of the first bundle under these names; returns the first's name."""
    first = current_bundle(collection)
    for name in names:
        shutil.copytree(first, first.with_name(name))
    return first.name


def age(collection: Path, *names: str) -> None:
    """Make these bundles look old."""
    for name in names:
        os.utime(collection / "bundles" / name, (1e9, 1e9))


def filling(collection: Path) -> Callable[[Path, str], None]:
    """Writes a bundle as it is into the folder it is given."""
    source = current_bundle(collection)

    def fill(folder: Path, name: str) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)

    return fill


def test_a_list_says_what_each_bundle_is_and_which_is_served(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c")
    (collection / "bundles" / ".0004-d.x.part").mkdir()
    (collection / "bundles" / "0003-c" / "manifest.json").write_text("{}")
    promote(collection, "0002-b")
    one, two, three = list_bundles(collection)
    manifest = read_manifest(collection / "bundles" / first)
    assert (one.name, one.current, one.previous, one.fault) == (first, False, True, None)
    assert (one.model, one.created, one.labels) == (manifest.model, manifest.created, 40)
    assert (one.examples, one.change) == (manifest.examples, 0)
    assert one.bytes == sum(path.stat().st_size for path in (collection / "bundles" / first).iterdir())
    assert (two.name, two.current, two.previous) == ("0002-b", True, False)
    assert (three.name, three.current, three.labels) == ("0003-c", False, 0)
    assert three.fault is not None and "0003-c" in three.fault
    (collection / "bundles" / first / "metrics.json").write_text('{"P@1": 0.5}')
    assert list_bundles(collection)[0].metrics == {"P@1": 0.5}


def test_promoting_and_rolling_back_walk_through_what_was_current(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c")
    with pytest.raises(LabelspaceError, match=f"no bundle was current before {first}"):
        rollback(collection)
    promote(collection, "0003-c")
    promote(collection, "0002-b", expected="0003-c")
    with pytest.raises(ConflictError, match="0002-b is current by now, not 0003-c"):
        promote(collection, first, expected="0003-c")
    assert current_bundle(collection).name == "0002-b"
    promote(collection, "0002-b")
    assert [rollback(collection), rollback(collection)] == ["0003-c", first]
    with pytest.raises(LabelspaceError, match="nothing was changed"):
        rollback(collection)
    assert current_bundle(collection).name == first


@pytest.mark.parametrize("name", ["0009-x", "", "..", "../bundles", ".0002.part", "/"])
def test_only_a_bundle_that_is_there_and_whole_is_promoted(collection: Path, name: str) -> None:
    first = copies(collection, "0002-b")
    with pytest.raises(InputError, match="there is no bundle"):
        promote(collection, name)
    with pytest.raises(InputError, match="there is no bundle"):
        verify(collection, name)
    vectors = collection / "bundles" / "0002-b" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BundleError, match=r"vectors\.npy: its checksum differs"):
        promote(collection, "0002-b")
    assert current_bundle(collection).name == first


def test_a_rollback_passes_over_what_is_gone(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c")
    promote(collection, "0002-b")
    promote(collection, "0003-c")
    shutil.rmtree(collection / "bundles" / "0002-b")
    assert rollback(collection) == first


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("writes", [0, 1, 2])
@pytest.mark.parametrize("act", ["promote", "rollback", "export"])
def test_killed_between_two_files_the_history_stays_true(
    collection: Path, monkeypatch: pytest.MonkeyPatch, act: str, writes: int
) -> None:
    first = copies(collection, "0002-b", "0003-c", "0004-d")
    promote(collection, "0002-b")
    promote(collection, "0003-c")
    left = writes

    def write(path: Path, text: str) -> None:
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        files.write_text(path, text)

    with monkeypatch.context() as broken:
        broken.setattr(bundles, "write_text", write)
        try:
            match act:
                case "promote":
                    promote(collection, "0004-d")
                case "rollback":
                    rollback(collection)
                case "export":
                    add_bundle(collection, "f" * 20, filling(collection))
        except KilledError:
            assert writes < 2
    done = {"promote": "0004-d", "rollback": "0002-b", "export": "0005-ffffffff"}[act] if writes == 2 else "0003-c"
    before = {"0004-d": "0003-c", "0005-ffffffff": "0003-c", "0003-c": "0002-b", "0002-b": first}[done]
    assert current_bundle(collection).name == done
    assert [entry.name for entry in list_bundles(collection) if entry.previous] == [before]
    assert rollback(collection) == before


def test_what_an_older_program_promoted_can_be_rolled_back_from(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c")
    (collection / "current").write_text("0002-b\n")
    promote(collection, "0003-c")
    assert rollback(collection) == "0002-b"
    (collection / "history").write_text(f"{first}\n0002-b\n")
    (collection / "current").write_text("0003-c\n")
    assert rollback(collection) == "0002-b"


def test_a_bundle_may_be_added_without_being_served(collection: Path) -> None:
    first = current_bundle(collection).name
    fill = filling(collection)
    assert add_bundle(collection, "abcdefghij", fill, promote=False) == "0002-abcdefgh"
    assert current_bundle(collection).name == first
    assert add_bundle(collection, "abcdefghij", fill) == "0003-abcdefgh"
    assert current_bundle(collection).name == "0003-abcdefgh"
    assert rollback(collection) == first


def test_two_that_add_at_once_get_two_numbers(collection: Path) -> None:
    together, fill = threading.Barrier(2, timeout=20), filling(collection)

    def slow(folder: Path, name: str) -> None:
        together.wait()
        fill(folder, name)

    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(add_bundle(collection, "m", slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == ["0002-m", "0003-m"]
    assert current_bundle(collection).name in names
    assert set(bundle_names(collection)) >= set(names)


def test_a_bundle_that_cannot_be_written_leaves_everything_as_it_was(collection: Path) -> None:
    first = current_bundle(collection).name

    def fail(folder: Path, name: str) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(LabelspaceError, match="No space left on device"):
        add_bundle(collection, "m", fail)
    assert bundle_names(collection) == [first] == [current_bundle(collection).name]
    assert [path.name for path in (collection / "bundles").iterdir()] == [first]


def test_verify_finds_a_flipped_bit_in_every_file(collection: Path) -> None:
    with Collection(collection) as opened:
        opened.write([PutLabel("new", "zebra")])
    name, log = verify(collection)
    assert (name.fault, log.fault, log.what, log.size) == (None, None, "log", 1)
    bundle, chooser = current_bundle(collection), random.Random(0)
    assert name.size == sum(path.stat().st_size for path in bundle.iterdir())
    for path in sorted(bundle.iterdir()):
        whole = bytearray(path.read_bytes())
        if not whole:
            continue
        changed = whole.copy()
        changed[chooser.randrange(len(whole))] ^= 1 << chooser.randrange(8)
        path.write_bytes(changed)
        (found,) = verify(collection, bundle.name)
        assert found.fault is not None and bundle.name in found.fault
        path.write_bytes(whole)
        kept = path.with_name("kept")
        path.rename(kept)
        assert verify(collection, bundle.name)[0].fault is not None
        kept.rename(path)
    whole = bytearray((collection / "changes.sqlite").read_bytes())
    place = whole.index(b"zebra")
    (collection / "changes.sqlite").write_bytes(whole[:place] + b"zebrb" + whole[place + 5 :])
    fault = verify(collection)[1].fault
    assert fault is not None and "change 1 is damaged" in fault


def test_verify_tells_a_log_that_lacks_what_the_bundle_has(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    newer = replace(read_manifest(current_bundle(collection)), change=5)
    monkeypatch.setattr(bundles, "read_manifest", lambda folder: newer)
    fault = verify(collection)[-1].fault
    assert fault is not None and "the log ends at change 0, the current bundle has change 5" in fault


def test_prune_keeps_what_is_served_and_what_a_rollback_goes_to(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c", "0004-d", "0005-e")
    age(collection, first, "0002-b", "0003-c", "0004-d", "0005-e")
    promote(collection, "0003-c")
    promote(collection, "0002-b")
    assert prune(collection, keep=3) == (first, "0004-d")
    assert bundle_names(collection) == ["0002-b", "0003-c", "0005-e"]
    assert prune(collection) == ("0005-e",)
    assert prune(collection) == ()
    assert rollback(collection) == "0003-c"
    promote(collection, "0002-b")
    assert prune(collection, keep=1) == ("0003-c",)
    assert bundle_names(collection) == ["0002-b"]
    with pytest.raises(LabelspaceError, match="no bundle was current before"):
        rollback(collection)
    with pytest.raises(InputError, match="keep is 0"):
        prune(collection, keep=0)


def test_prune_leaves_what_somebody_may_be_about_to_promote(collection: Path) -> None:
    first = copies(collection, "0002-b", "0003-c")
    age(collection, first, "0002-b")
    assert prune(collection, keep=1) == ("0002-b",)
    assert bundle_names(collection) == [first, "0003-c"]


def test_prune_sweeps_up_what_killed_processes_left(collection: Path) -> None:
    for place, name in ((collection, ".current.x.part"), (collection / "bundles", ".0009-m.y.part")):
        for prefix in ("", ".old"):
            path = place / f"{prefix}{name}"
            path.mkdir() if "0009" in name else path.write_text("x")
            if prefix:
                os.utime(path, (1e9, 1e9))
    assert prune(collection) == (".old.current.x.part", ".old.0009-m.y.part")
    assert (collection / ".current.x.part").exists() and (collection / "bundles" / ".0009-m.y.part").exists()


def test_a_lock_that_stays_taken_is_told(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from index.collection_folder import locked

    copies(collection, "0002-b")
    monkeypatch.setattr("index.collection_folder._LOCK_SECONDS", 0.05)
    with locked(collection):
        began = time.monotonic()
        with pytest.raises(LabelspaceError, match="another process is changing it"):
            promote(collection, "0002-b")
        assert time.monotonic() - began < 5
    promote(collection, "0002-b")


def test_numbers_beyond_four_digits_stay_in_order(collection: Path) -> None:
    copies(collection, "9999-b", "10000-c")
    assert bundle_names(collection)[-2:] == ["9999-b", "10000-c"]
    assert add_bundle(collection, "m", filling(collection), promote=False) == "10001-m"


def test_what_is_no_collection_is_refused(tmp_path: Path) -> None:
    for act in (list_bundles, rollback, verify, prune):
        with pytest.raises(BundleError, match="no collection here"):
            act(tmp_path)
