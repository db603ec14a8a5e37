"""The delta: views that share buffers, forks, threads, and sealed parts on clustered vectors."""

from __future__ import annotations

import functools
from threading import Event, Thread

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index.delta import Arrivals, Delta, Tail
from index.layered import LayeredIndex
from index.sealing import Sealed, seal

DIM = 48


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def clustered(count: int, seed: int, centres: int = 150) -> NDArray[np.float32]:
    """Around centres far from each other, most of them around a few."""
    random = np.random.default_rng(seed)
    around = np.random.default_rng(99).standard_normal((centres, DIM))
    chosen = np.minimum(random.geometric(0.02, count) - 1, centres - 1)
    made = around[chosen] + 0.5 * random.standard_normal((count, DIM))
    unit: NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_a_fork_and_the_view_it_left_keep_their_own() -> None:
    first = Tail.empty(DIM, Arrivals()).add(np.arange(5), vectors(5, 0))
    one = first.add(np.array([10, 11]), vectors(2, 1))
    other = first.add(np.array([20, 21]), vectors(2, 2))
    further = one.add(np.array([12]), vectors(1, 3))
    assert first.live()[0].tolist() == [0, 1, 2, 3, 4]
    assert one.live()[0].tolist() == [0, 1, 2, 3, 4, 10, 11]
    assert other.live()[0].tolist() == [0, 1, 2, 3, 4, 20, 21]
    assert further.live()[0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
    assert (one.live()[2] == np.concatenate([vectors(5, 0), vectors(2, 1)])).all()
    assert (other.live()[2] == np.concatenate([vectors(5, 0), vectors(2, 2)])).all()
    assert not set(one.live()[1][5:].tolist()) & set(other.live()[1][5:].tolist())


def test_a_sealing_of_one_fork_hides_in_the_other_what_that_has_not() -> None:
    index = LayeredIndex.over(faiss.IndexFlatIP(DIM)).add(np.arange(5), vectors(5, 0))
    one = index.add(np.array([10]), vectors(1, 1))
    other = index.add(np.array([10]), vectors(1, 2))
    joined = other.with_sealed(one.sealed())
    assert len(joined) == 6
    assert sorted(joined.delta_rows.tolist()) == [0, 1, 2, 3, 4, 10]
    assert joined.search(vectors(1, 2), 1).scores[0, 0] == pytest.approx(float((vectors(1, 2) ** 2).sum()), rel=1e-5)


def test_adding_writes_behind_older_views_and_copies_nothing() -> None:
    tail = Tail.empty(DIM, Arrivals()).add(np.arange(300), vectors(300, 0))
    more = tail.add(np.array([300]), vectors(1, 1))
    assert np.shares_memory(tail.live()[2], more.live()[2])


def test_an_empty_delta() -> None:
    delta = Delta.empty(DIM)
    assert len(delta) == 0
    assert delta.search(vectors(1, 0), 3, None) == []
    assert delta.rows().tolist() == []
    assert delta.vectors().shape == (0, DIM)
    assert delta.add(np.zeros(0, dtype=np.int64), vectors(0, 0)).rows().tolist() == []
    sealed = seal(delta)
    assert isinstance(sealed, Sealed)
    assert len(sealed.rows) == 0


def test_readers_of_old_views_are_not_disturbed_by_a_writer_and_a_sealing() -> None:
    base = faiss.IndexFlatIP(DIM)
    base.add(clustered(200, 0))
    queries, stop, wrong = clustered(4, 1), Event(), list[str]()
    views = [LayeredIndex.over(base)]
    expected = [views[0].search(queries, 10)]

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            place = int(random.integers(0, len(expected)))
            found = views[place].search(queries, 10)
            if not (found.rows == expected[place].rows).all():
                wrong.append(f"view {place} has changed")

    readers = [Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for step in range(60):
        rows = np.arange(step * 7, step * 7 + 20) + 150
        index = views[-1].add(rows, clustered(20, 100 + step)).hide([int(rows[3])])
        if step % 15 == 14:
            sealed: list[Sealed] = []
            sealer = Thread(target=lambda index=index, sealed=sealed: sealed.append(index.sealed()))
            sealer.start()
            later = index.add(rows[:5], clustered(5, 500 + step))
            sealer.join()
            index = later.with_sealed(sealed[0])
        views.append(index)
        expected.append(index.search(queries, 10))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    for view, found in zip(views, expected, strict=True):
        assert (view.search(queries, 10).rows == found.rows).all()


@functools.cache
def grown() -> tuple[NDArray[np.float32], LayeredIndex]:
    """8,000 clustered vectors after an empty base, sealed in two steps."""
    added = clustered(8_000, 2)
    index = LayeredIndex.over(faiss.IndexFlatIP(DIM))
    for start in (0, 4_000):
        rows = np.arange(start, start + 4_000)
        index = index.add(rows, added[rows])
        index = index.with_sealed(index.sealed())
    return added, index


@pytest.mark.parametrize("hidden", ["nothing", "a tenth", "two thirds", "the nearest", "one side"])
def test_a_sealed_part_finds_nearly_all_of_the_best_however_much_is_hidden(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if rows were dear to fetch: the graph is what is looked at.
    monkeypatch.setattr("index.masked_search._ROWS_PER_STEP", 1.0)
    added, index = grown()
    queries = clustered(100, 3)
    shown = {
        "nothing": np.ones(len(added), dtype=np.bool_),
        "a tenth": np.arange(len(added)) % 10 > 0,
        "two thirds": np.arange(len(added)) % 3 == 0,
        "the nearest": (queries @ added.T).max(axis=0) < 0.85,
        "one side": added[:, 0] > 0,
    }[hidden]
    assert 0.2 < shown.mean() <= 1
    index = index.hide(np.flatnonzero(~shown))
    found = index.search(queries, 10).rows
    assert shown[found].all()
    exact = np.where(shown, queries.astype(np.float64) @ added.T.astype(np.float64), -np.inf)
    best = np.argsort(-exact, axis=1)[:, :10]
    assert np.mean([np.isin(true, got).mean() for true, got in zip(best, found, strict=True)]) >= 0.99


def test_equal_vectors_are_found_in_a_sealed_part() -> None:
    same = np.repeat(clustered(1, 4), 500, axis=0)
    others = clustered(3_000, 5)
    index = LayeredIndex.over(faiss.IndexFlatIP(DIM)).add(np.arange(3_500), np.concatenate([same, others]))
    index = index.with_sealed(index.sealed())
    assert set(index.search(same[:1], 500).rows[0].tolist()) == set(range(500))
    # So many equal vectors are a hole in a graph: what lies around them is found a little less surely.
    queries = clustered(50, 6)
    best = np.argsort(-(queries @ others.T), axis=1)[:, :10] + 500
    found = index.search(queries, 10, np.arange(500, 3_500)).rows
    assert np.mean([np.isin(true, got).mean() for true, got in zip(best, found, strict=True)]) >= 0.97
