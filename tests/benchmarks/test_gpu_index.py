"""The counting of bytes and the smoke path of benchmarks/gpu_index.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

import gpu_index
from gpu_index import built, bytes_read, copy_rate
from index.card_index import CardIndex
from index.clustered import clustered
from index.device import Device, missing_for_cuda


def test_the_bytes_of_a_call_are_those_of_the_vectors_or_of_the_probed_lists() -> None:
    vectors, _ = clustered(600, 16, 0)
    cpu, half = Device("cpu"), Device("cuda", (0,), fp16=True)
    flat, graph, lists = (built(kind, vectors) for kind in ("Flat", "HNSW8,SQ8", "IVF16,SQ8"))
    assert bytes_read(flat, cpu, vectors[:1]) == 600 * 16 * 4
    assert bytes_read(graph, cpu, vectors[:1]) is None
    for host in (flat, graph):
        assert bytes_read(CardIndex(host, []), half, vectors[:9]) == 600 * 16 * 2
    probed = set()
    for query in vectors[:5].astype(np.float64):
        centres = lists.quantizer.reconstruct_n(0, 16).astype(np.float64)
        probed |= set(np.argsort(-(centres @ query))[:4].tolist())
    rows = sum(lists.invlists.list_size(number) for number in probed)
    assert lists.nprobe == 4
    assert bytes_read(lists, cpu, vectors[:5]) == rows * (16 + 8) + 16 * 16 * 4


def test_the_copy_rate_is_a_rate() -> None:
    rate = copy_rate(Device("cpu"))
    assert rate is not None and 1e7 < rate < 1e13


def test_the_smoke_path_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "smoke.json"
    monkeypatch.setattr(sys, "argv", ["gpu_index.py", "--device", "cpu", "--small", "--out", str(out)])
    before = faiss.omp_get_max_threads()
    try:
        gpu_index.main()
    finally:
        faiss.omp_set_num_threads(before)
    written = json.loads(out.read_text())
    assert written["device"] == "cpu"
    assert [row["kind"] for row in written["results"]] == list(gpu_index.SMALL_KINDS)
    flat = written["results"][0]["cpu"]
    assert flat["recall@10"] == 1.0 and flat["batch 1 bytes"] == 2_000 * 32 * 4
    seconds = flat["batch 1 p50_ms"] / 1e3
    assert flat["batch 1 gb_a_second"] == pytest.approx(2_000 * 32 * 4 / seconds / 1e9, rel=0.05)


def test_without_a_card_it_refuses_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing_for_cuda() is None:
        pytest.skip("there is a card")
    out = tmp_path / "none.json"
    monkeypatch.setattr(sys, "argv", ["gpu_index.py", "--small", "--out", str(out)])
    with pytest.raises(SystemExit, match=r"^device cuda:0: .*"):
        gpu_index.main()
    assert not out.exists()
