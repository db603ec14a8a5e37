"""Building an index: exact search by NumPy is the oracle."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from index.build import build_index, exact_top, open_index, overlap
from index.errors import BundleError, InputError
from index.rescoring import candidates, rescored


def clustered(count: int, dim: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((40, dim))
    vectors = centres[random.integers(40, size=count)] + 0.5 * random.standard_normal((count, dim))
    unit: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ).astype(np.float32)
    return unit


def test_exact_search_is_the_largest_products() -> None:
    vectors, queries = clustered(300, 16, 0), clustered(20, 16, 1)
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    assert exact_top(vectors, queries, 7).tolist() == np.argsort(-products, axis=1)[:, :7].tolist()


def test_few_vectors_get_an_exact_index() -> None:
    vectors, queries = clustered(500, 16, 0), clustered(30, 16, 1)
    index, report = build_index(vectors, queries)
    assert (report.factory, report.recall, report.vectors) == ("Flat", 1.0, 500)
    assert index.search(queries, 10)[1].tolist() == exact_top(vectors, queries, 10).tolist()


def test_many_vectors_get_a_graph_with_the_recall_that_it_reports() -> None:
    vectors, queries = clustered(6000, 32, 2), clustered(200, 32, 3)
    index, report = build_index(vectors, queries, target=0.99, exact_below=1000, build_effort=100)
    assert report.factory.startswith("HNSW")
    assert report.recall >= 0.99
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    truth = np.argsort(-products, axis=1)[:, :10]
    index.hnsw.efSearch = report.effort
    found = index.search(queries, 10)[1]
    shares = [len(set(mine) & set(true)) / 10 for mine, true in zip(found.tolist(), truth.tolist(), strict=True)]
    assert abs(np.mean(shares) - report.recall) < 1e-6


def test_recall_counts_shares() -> None:
    found, truth = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[3, 2, 9], [7, 8, 9]])
    assert overlap(found, truth) == np.mean([2 / 3, 0])
    assert overlap(np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3), dtype=np.int64)) == 1.0


def share_found(found: np.ndarray[tuple[int, int], np.dtype[np.int64]], vectors: object, queries: object) -> float:
    products = np.asarray(queries, dtype=np.float64) @ np.asarray(vectors, dtype=np.float64).T
    truth = np.argsort(-products, axis=1)[:, :10]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def test_exact_search_goes_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.build.BLOCK", 7)
    vectors, queries = clustered(50, 8, 0), clustered(5, 8, 1)
    vectors[33] = vectors[2]
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    assert exact_top(vectors, queries, 9).tolist() == np.argsort(-products, axis=1, kind="stable")[:, :9].tolist()
    assert exact_top(vectors[:3], queries, 9).shape == (5, 3)
    assert exact_top(vectors, queries[:0], 9).shape == (0, 9)


def test_the_report_says_how_to_search_how_long_it_takes_and_how_much_it_keeps() -> None:
    vectors, queries = clustered(4000, 32, 2), clustered(100, 32, 3)
    index, report = build_index(vectors, queries, spec="IVF32,SQ8", target=0.9, rescore=True)
    assert report.search["nprobe"] == report.effort == index.nprobe
    assert report.rescore == report.search.get("rescore", 1.0) >= 1.0
    assert 0 < report.latency_ms < 100
    assert abs(report.bytes_per_vector * 4000 / faiss.serialize_index(index).nbytes - 1) < 0.01


@pytest.mark.parametrize("spec", ["IVF32,PQ16x4fs", "HNSW8,SQ4", "IVF32,SQ4"])
def test_coarse_codes_reach_the_target_when_candidates_are_scored_again(spec: str) -> None:
    vectors, queries = clustered(4000, 32, 2), clustered(100, 32, 3)
    index, report = build_index(vectors, queries, spec=spec, target=0.96, rescore=True, build_effort=60)
    assert report.rescore > 1.0
    rows = index.search(queries, candidates(10, report.rescore))[1]
    best = rescored(queries, rows, 10, lambda wanted: vectors[wanted])[1]
    assert share_found(best, vectors, queries) == pytest.approx(report.recall, abs=1e-9)
    assert report.recall >= 0.96
    # The codes alone do not.
    assert share_found(index.search(queries, 10)[1], vectors, queries) < 0.96


def test_scores_of_faiss_are_not_taken_for_exact_ones_without_being_asked() -> None:
    vectors, queries = clustered(3000, 16, 2), clustered(50, 16, 3)
    assert build_index(vectors, queries, spec="IVF16,SQ4", target=1.0)[1].rescore == 1.0


def test_a_target_out_of_reach_is_told_and_all_choices_are_tried() -> None:
    vectors, queries = clustered(3000, 16, 2), clustered(50, 16, 3)
    index, report = build_index(vectors, queries, target=1.1, exact_below=100, build_effort=40)
    assert 0.9 < report.recall <= 1.0
    assert share_found(index.search(queries, 10)[1], vectors, queries) == pytest.approx(report.recall, abs=1e-9)


def test_faiss_itself_may_score_again() -> None:
    vectors, queries = clustered(3000, 32, 2), clustered(50, 32, 3)
    index, report = build_index(vectors, queries, spec="IVF16,PQ16x4fs,RFlat", target=0.98)
    assert report.recall >= 0.98
    assert report.search["k_factor"] == index.k_factor > 1


def test_a_memory_map_is_indexed_in_blocks_to_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = clustered(3000, 16, 2), clustered(50, 16, 3)
    np.save(tmp_path / "vectors.npy", vectors)
    whole, _ = build_index(vectors, queries, spec="IVF16,SQ8")
    monkeypatch.setattr("index.build.BLOCK", 700)
    mapped, _ = build_index(np.load(tmp_path / "vectors.npy", mmap_mode="r"), queries, spec="IVF16,SQ8")
    assert faiss.serialize_index(mapped).tobytes() == faiss.serialize_index(whole).tobytes()


@pytest.mark.parametrize("vectors", [np.zeros((0, 8), np.float32), np.ones((1, 8), np.float32)])
def test_none_and_one(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    queries = clustered(3, 8, 0)
    index, report = build_index(vectors, queries)
    assert (report.factory, report.vectors, index.ntotal) == ("Flat", len(vectors), len(vectors))


def test_equal_vectors_and_no_queries() -> None:
    vectors = np.repeat(clustered(1, 8, 0), 500, axis=0)
    index, report = build_index(vectors, clustered(0, 8, 1), exact_below=10, build_effort=40)
    assert index.ntotal == report.vectors == 500
    assert (report.queries, report.latency_ms) == (0, 0.0)


def test_a_spec_that_the_vectors_are_too_few_for_is_named() -> None:
    vectors, queries = clustered(20, 8, 0), clustered(3, 8, 1)
    with pytest.raises(InputError, match=r"index 'IVF64,Flat': FAISS cannot build it over 20 vectors of 8 dimensions"):
        build_index(vectors, queries, spec="IVF64,Flat")


def test_a_memory_budget_is_kept() -> None:
    vectors, queries = clustered(3000, 16, 2), clustered(50, 16, 3)
    index, report = build_index(vectors, queries, memory_budget=100_000, rescore=True, target=0.9)
    assert report.factory != "Flat"
    assert faiss.serialize_index(index).nbytes <= 100_000


@pytest.mark.parametrize("spec", ["Flat", "HNSW8,SQ8", "HNSW8,Flat", "IVF16,SQ8", "IVF16_HNSW8,SQ8", "IVF16,PQ8x4fs"])
def test_an_index_opened_from_its_file_finds_the_same(spec: str, tmp_path: Path) -> None:
    vectors, queries = clustered(2000, 16, 2), clustered(50, 16, 3)
    index, report = build_index(vectors, queries, spec=spec, target=0.9, build_effort=40)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    shown = faiss.IDSelectorBatch(np.arange(0, 2000, 3))
    for mmap in (True, False):
        opened = open_index(tmp_path / "index.faiss", mmap=mmap)
        assert opened.ntotal == report.vectors
        for found, true in zip(opened.search(queries, 10), index.search(queries, 10), strict=True):
            assert found.tolist() == true.tolist()
    if spec == "HNSW8,SQ8":
        parameters = faiss.SearchParametersHNSW(efSearch=64, sel=shown)
        assert (open_index(tmp_path / "index.faiss").search(queries, 10, params=parameters)[1] % 3 == 0).all()


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_damaged_file_is_told_by_name(kept: int, mmap: bool, tmp_path: Path) -> None:
    index, _ = build_index(clustered(2000, 16, 2), clustered(20, 16, 3), spec="HNSW8,SQ8", build_effort=40)
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"index\.faiss: is no index that FAISS reads"):
        open_index(path, mmap=mmap)


def test_a_missing_file_and_one_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.faiss").write_text("no index at all, however long this is")
    for name in ("none.faiss", "text.faiss"):
        with pytest.raises(BundleError, match=name):
            open_index(tmp_path / name)
