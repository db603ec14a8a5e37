"""A re-index job that is ended anywhere: what is current stays, and the next one goes on with what is finished."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from index import encode_shards, reindex, reindex_build, reindex_bundle, reindex_texts
from index.bundle import Bundle
from index.bundles import bundle_names, current_bundle
from index.changes import PutLabel
from index.collection import Collection
from index.encoder import Encoder
from index.errors import LabelspaceError
from index.files import write_json
from index.reindex import Settings
from reindex_support import CHANGES, changed, done, left_over, now, same, served

# Where a job is ended, and how often the function is let through before.
STEPS: tuple[tuple[object, str, int], ...] = (
    (reindex_texts, "write_texts", 1),
    (encode_shards, "write_json", 1),
    (reindex, "text_shards", 0),
    (reindex_build, "build_index", 0),
    (reindex_build, "build_index", 1),
    (reindex_bundle, "seal_files", 0),
    (reindex_bundle, "write_manifest", 0),
    (reindex, "compare", 0),
    (reindex, "promote", 0),
    (reindex, "end_job", 0),
)


def failing(after: int, real: Callable[..., object], error: Exception) -> Callable[..., object]:
    left = [after]

    def call(*given: object, **named: object) -> object:
        if not left[0]:
            raise error
        left[0] -= 1
        return real(*given, **named)

    return call


@pytest.mark.parametrize(("module", "name", "after"), STEPS, ids=lambda value: getattr(value, "__name__", value))
def test_a_job_that_fails_anywhere_leaves_what_is_current_and_goes_on(
    module: object, name: str, after: int, voting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, first = changed(voting), current_bundle(voting)
    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(module, name, failing(after, getattr(module, name), error))
    with pytest.raises((OSError, LabelspaceError), match="No space left"):
        done(voting)
    monkeypatch.undo()
    if name != "end_job":
        assert current_bundle(voting) == first
    assert same(now(voting), before)
    with Collection(voting) as opened:
        opened.write([PutLabel("later", "yacht")])
        after_all = served(opened.snapshot)
    outcome = done(voting)
    # It goes on with the job that was begun: what came later is in the log.
    assert outcome.change == len(CHANGES)
    assert outcome.promoted
    assert same(now(voting), after_all)
    assert left_over(voting) == []
    assert len(bundle_names(voting)) == 2


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from index.reindex import Settings, reindex
module, name, after = import_module(sys.argv[2]), sys.argv[3], int(sys.argv[4])
real = getattr(module, name)
def call(*given, **named):
    global after
    after -= 1
    if after < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(module, name, call)
@contextmanager
def meter(what, total, done):
    yield lambda rows: None
reindex(Path(sys.argv[1]), Settings(), report=print, meter=meter)
"""


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        ("index.encode_shards", "write_json", 1),
        ("index.reindex_build", "build_index", 1),
        ("index.bundles", "read_manifest", 0),
        ("index.reindex", "end_job", 0),
    ],
)
def test_a_job_that_is_killed_goes_on(module: str, name: str, after: int, voting: Path) -> None:
    before = changed(voting)
    command = [sys.executable, "-c", KILLED, str(voting), module, name, str(after)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert same(now(voting), before)
    outcome = done(voting)
    assert outcome.promoted
    assert outcome.change == len(CHANGES)
    assert same(now(voting), before)
    assert left_over(voting) == []
    assert len(bundle_names(voting)) == 2


def test_what_was_encoded_before_the_kill_is_not_encoded_again(voting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex_texts, "SHARD_ROWS", 4)
    before = changed(voting, tuple(PutLabel(f"k{number}", f"label number {number}") for number in range(20)))
    encoded, real = list[int](), Encoder.texts

    def counting(self: Encoder, texts: list[str], fields: object = None) -> object:
        encoded.append(len(texts))
        return real(self, texts, fields)  # type: ignore[arg-type]

    def note(*given: object) -> None:
        reindex_texts.note_texts(*given)  # type: ignore[arg-type]
        encoded.clear()

    with monkeypatch.context() as patch:
        patch.setattr(reindex, "note_texts", note)
        patch.setattr(Encoder, "texts", counting)
        patch.setattr(reindex_build, "build_index", failing(0, print, OSError("ended")))
        patch.setattr(encode_shards, "write_json", failing(3, write_json, OSError("ended")))
        with pytest.raises(OSError, match="ended"):
            done(voting)
        assert encoded == [4, 4, 4, 4]
        patch.setattr(encode_shards, "write_json", write_json)
        with pytest.raises(OSError, match="ended"):
            done(voting)
        # Three shards were finished: of the fourth the note was not there yet. Then what is tuned on.
        assert encoded[:2] == [4, 4]
        assert sum(encoded[2:]) == len(read_lines(current_bundle(voting) / "dev.jsonl"))
    assert done(voting).promoted
    assert same(now(voting), before)


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_finished_bundle_that_was_damaged_since_is_written_again(voting: Path) -> None:
    before = changed(voting)
    name = done(voting, Settings(promote=False)).bundle
    vectors = voting / "bundles" / name / "vectors.npy"
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    said = list[str]()
    assert done(voting, said=said).promoted
    assert any("it is written again" in line for line in said)
    assert same(now(voting), before)
    Bundle.open(current_bundle(voting))
