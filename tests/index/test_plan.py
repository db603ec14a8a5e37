"""What a plan says, with figures of a made-up machine: sums by hand are the oracle."""

from __future__ import annotations

from dataclasses import replace

import faiss
import numpy as np
import pytest

from index.build import build_index
from index.errors import InputError
from index.plan import Calibration, calibrated, plan

asked: list[tuple[str, int, int]] = []


def machine(factory: str, dim: int, effort: int) -> Calibration:
    asked.append((factory, dim, effort))
    return Calibration(trained=2.0, added=1e-3, among=10_000, searched=1e-4, compared=1e-9, exact=2e-10)


def test_exact_search_needs_the_floats_and_the_time_to_copy_and_time_them() -> None:
    made = plan(10_000, 64, machine)
    assert (made.labels.factory, made.labels.bytes, made.memory) == ("Flat", 10_000 * 256, 10_000 * 256)
    assert made.disk == 2 * 10_000 * 256
    assert made.seconds == pytest.approx(2 + 10_000 * 1e-3 + 200 * 1e-4)
    assert made.examples is None


def test_a_graph_takes_longer_for_each_vector_the_more_there_are() -> None:
    made = plan(160_000, 64, machine, spec="HNSW16,SQ8")
    growth = 16**0.36
    tuned = 160_000 * 64 * 1000 * 2e-10 + 1e-4 * growth * 6200
    assert made.seconds == pytest.approx(2 + 160_000 * 1e-3 * growth + tuned)
    assert asked[-1] == ("HNSW16,SQ8", 64, 100)
    assert made.labels.bytes == pytest.approx(160_000 * (64 + 4 * (32 + 16 / 15) + 12), rel=1e-4)
    assert made.labels.building == made.labels.bytes + 4 * 64 * (2 * 50_000 + 50_000)


def test_lists_are_trained_and_found_for_each_vector_and_for_those_that_train_codes() -> None:
    def lists(*_: object) -> Calibration:
        return replace(machine("", 64, 0), assigned=1e-5, lists=1024, read=1e-8)

    made = plan(1_000_000, 64, lists, spec="IVF4096,SQ8")
    trained = 2 + 10 * 40 * 4096 * 4096 * 64 * 1e-9
    listed = (1_000_000 + 100_000) * 4 * 1e-5
    added = 1_000_000 * 1e-3
    probed = (1, 2, 4, 6, 8, 12, 16, 16)
    each = [1e-4 + 4e-5 + probes * 1e-8 * 1_000_000 / 4096 for probes in probed]
    tuned = 1_000_000 * 64 * 1000 * 2e-10 + 1000 * sum(each) + 200 * each[-1]
    assert made.seconds == pytest.approx(trained + listed + added + tuned)
    assert not made.labels.at_most
    assert made.labels.bytes == pytest.approx(1_000_000 * 72 + 4096 * (256 + 8), rel=1e-4)


def test_a_graph_over_the_centres_is_filled_and_finds_lists_more_slowly_the_more_there_are() -> None:
    def lists(*_: object) -> Calibration:
        return replace(machine("", 64, 0), assigned=1e-4, placed=1e-5, lists=1024)

    made = plan(200_000, 64, lists, spec="IVF8192_HNSW32,Flat")
    growth = 8**0.6
    trained = 2 + 10 * 200_000 * 8192 * 64 * 1e-9 + growth * 8192 * 1e-5
    tuned = 200_000 * 64 * 1000 * 2e-10 + (8 * 1000 + 200) * (1e-4 + growth * 1e-4)
    assert made.seconds == pytest.approx(trained + 200_000 * (1e-3 + growth * 1e-4) + tuned)


def test_codes_that_may_miss_the_recall_are_planned_with_all_efforts_and_said_to_be() -> None:
    def lossy(*_: object) -> Calibration:
        return replace(machine("", 64, 0), searched=0.0, read=1e-6, lists=64, lost=0.01)

    made = plan(6_400, 64, lossy, spec="IVF64,RaBitQfs")
    probed = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    built = 2 + 6.4 + 10 * 6_400 * 64 * 64 * 1e-9 + 6_400 * 64 * 1000 * 2e-10
    assert made.labels.at_most
    assert made.seconds == pytest.approx(built + 1e-4 * (1000 * sum(probed) + 200 * 64))
    assert not plan(6_400, 64, lossy).labels.at_most  # exact search


def test_threads_share_the_time() -> None:
    assert plan(50_000, 64, machine, threads=4).seconds == pytest.approx(plan(50_000, 64, machine).seconds / 4)


def test_examples_have_an_index_of_their_own_within_the_same_memory() -> None:
    made = plan(30_000, 64, machine, examples=40_000)
    assert made.examples is not None
    assert (made.labels.factory, made.examples.factory) == ("HNSW14,SQ8", "HNSW32,SQ8")
    assert made.memory == made.labels.bytes + made.examples.bytes
    assert made.disk == made.memory + 30_000 * 256
    small = plan(30_000, 64, machine, examples=40_000, memory_budget=made.memory - 1)
    assert small.labels.factory.startswith("IVF")
    assert small.memory < made.memory


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InputError, match="too few"):
        plan(10**6, 256, machine, memory_budget=10**6)
    with pytest.raises(InputError, match="index 'Flat': takes 1,024,000,000 bytes; memory has 400,000,000 for it"):
        plan(10**6, 256, machine, spec="Flat", memory_budget=4 * 10**8)
    with pytest.raises(InputError, match="index 'Flut'"):
        plan(10, 256, machine, spec="Flut")


@pytest.mark.parametrize(
    ("labels", "dim", "threads", "examples"), [(0, 1, 1, 0), (1, 0, 1, 0), (1, 1, 0, 0), (1, 1, 1, -1)]
)
def test_nothing_cannot_be_planned(labels: int, dim: int, threads: int, examples: int) -> None:
    with pytest.raises(InputError, match="have to be 1 or more, "):
        plan(labels, dim, machine, threads=threads, examples=examples)


def test_one_label_and_very_many() -> None:
    assert plan(1, 1, machine).memory == 4
    assert plan(10**9, 256, machine).memory < 100e9


@pytest.mark.parametrize("spec", ["Flat", "HNSW8,SQ8", "IVF32,SQ8"])
def test_bytes_are_those_of_the_index_that_is_built(spec: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((3000, 16), dtype=np.float32)
    index, _ = build_index(vectors, vectors[:20], spec=spec, target=0.5, build_effort=40)
    assert plan(3000, 16, machine, spec=spec).memory == pytest.approx(faiss.serialize_index(index).nbytes, rel=0.02)


@pytest.mark.parametrize(
    "spec", ["Flat", "SQ8", "HNSW8,SQ8", "IVF64_HNSW32,SQ8", "PCA8,IVF64,SQ8", "IVF1k,PQ8x4fs,RFlat"]
)
def test_this_machine_is_measured(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.plan._CALIBRATED_GRAPH", 300)
    monkeypatch.setattr("index.plan._CALIBRATED_OTHER", 500)
    measured = calibrated(spec, 16, 40)
    assert 0 < measured.added < 0.1
    assert 0 < measured.searched < 0.1
    assert 0 < measured.exact < 1e-4
    assert 0 <= measured.lost < 0.2
    assert (measured.compared > 0) == (measured.assigned > 0) == ("IVF" in spec)
    assert (measured.placed > 0) == ("IVF64_HNSW32" in spec)
