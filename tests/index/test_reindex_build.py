"""What a re-indexed bundle is built of: vectors as they are served, stand-ins for queries, built indexes."""

from __future__ import annotations

import errno
from pathlib import Path

import faiss
import numpy as np
import pytest

from index import reindex_build
from index.build import IndexReport
from index.bundle import Bundle
from index.bundles import current_bundle
from index.changes import Change, Feedback, LabelChange, PutLabel, RemoveLabel
from index.errors import LabelspaceError
from index.reindex_build import ServedVectors, stand_ins, write_array
from index.snapshot import Snapshot


@pytest.fixture(scope="module")
def snapshot(tiny_collection: Path) -> Snapshot:
    return Snapshot.of(Bundle.open(current_bundle(tiny_collection)))


def test_served_vectors_are_those_that_a_search_compares(snapshot: Snapshot) -> None:
    changes: list[LabelChange] = [
        PutLabel("new", "zebra crossing"),
        PutLabel("s4", "velvet"),
        Feedback("umbrella stand", ("s7",)),
        RemoveLabel("s3"),
        PutLabel("v", vector=tuple([2.0] * 32)),
    ]
    after = snapshot.after([Change(number, what) for number, what in enumerate(changes, 1)])
    rows = np.array([row for row, _ in after.labels.after(None)])
    vectors = ServedVectors(after)(rows)
    for place, row in enumerate(rows.tolist()):
        found = after.index.search(vectors[place : place + 1], 50)
        score = found.scores[0][found.rows[0] == row]
        # Of a label of which nothing is known there is no vector, and it is not found.
        assert (len(score) == 0) == (not vectors[place].any())
        if len(score):
            assert score[0] == pytest.approx(float(vectors[place] @ vectors[place]), abs=1e-6)
    everything = np.asarray(after.index.search(np.eye(32, dtype=np.float32), 50).scores)
    wanted = np.sort(vectors[vectors.any(axis=1)], axis=0)[::-1].T
    assert np.abs(everything[:, : wanted.shape[1]] - wanted).max() < 1e-6


def test_stand_ins_are_near_to_vectors_that_are_there() -> None:
    chooser = np.random.default_rng(1)
    vectors = chooser.standard_normal((3000, 64)).astype(np.float32)
    vectors[::3] = 0.0
    found = stand_ins(vectors)
    assert found.shape == (1000, 64)
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    units = vectors[vectors.any(axis=1)]
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    assert 0.8 < float((found @ units.T).max(axis=1).mean()) < 0.97
    assert np.array_equal(found, stand_ins(vectors))
    assert stand_ins(np.zeros((0, 8), dtype=np.float32)).shape == (0, 8)
    assert stand_ins(np.zeros((5, 8), dtype=np.float32)).shape == (0, 8)


def test_an_array_is_written_block_by_block(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    write_array(tmp_path / "a.npy", (10, 3), [values[:4], values[4:4], values[4:]])
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)
    write_array(tmp_path / "none.npy", (0, 3), [])
    assert np.load(tmp_path / "none.npy").shape == (0, 3)


def test_a_finished_index_is_kept_and_a_damaged_one_is_built_again(tmp_path: Path) -> None:
    built = list[int]()

    def build() -> tuple[faiss.Index, IndexReport]:
        built.append(1)
        index = faiss.IndexFlatIP(4)
        index.add(np.eye(4, dtype=np.float32))
        return index, IndexReport("Flat", 0, 1.0, 3, 4)

    first = reindex_build._kept_index(tmp_path, "index", build)
    assert reindex_build._kept_index(tmp_path, "index", build) == first
    assert len(built) == 1
    data = bytearray((tmp_path / "index.faiss").read_bytes())
    data[-1] ^= 1
    (tmp_path / "index.faiss").write_bytes(data)
    assert reindex_build._kept_index(tmp_path, "index", build) == first
    assert len(built) == 2


def test_a_disk_that_faiss_cannot_write_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise RuntimeError("Error: 'ret == size' failed: write error: No space left on device")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(LabelspaceError, match=r"index\.faiss: could not be written \(.*No space left"):
        reindex_build._kept_index(tmp_path, "index", lambda: (faiss.IndexFlatIP(4), IndexReport("Flat", 0, 1.0, 0, 0)))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reindex_build, "write_array", full)
    with pytest.raises(LabelspaceError, match="No space left"):
        reindex_build._kept_array(tmp_path / "a.npy", 1, 2, [])
    assert not list(tmp_path.iterdir())
