"""The search over copies on cards, against brute force. All cards but the last test's are stand-ins: FAISS indexes of
this machine's memory that, as those on cards do, hear no selector and take no more than 2,048 rows."""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index import card_index
from index.card_index import MOST_ROWS, SCRATCH, CardIndex, card_bytes, check_fits, flattened, host_of, place
from index.device import Device, missing_for_cuda
from index.errors import LabelspaceError
from index.layered import LayeredIndex

DIM = 8


class Card:
    """Searches without a mask, never twice at once, and keeps how wide each search was."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.widths, self.probes = inner, list[int](), list[int]()
        self.busy = threading.Lock()

    def search(self, queries: NDArray[np.float32], k: int, *, params: Any = None) -> Any:
        assert k <= MOST_ROWS, "a card refuses this"
        assert self.busy.acquire(blocking=False), "two searches at once"
        try:
            self.widths.append(k)
            if params is not None:
                assert params.sel is None, "a selector that would not be heeded"
                self.probes.append(params.nprobe)
            return self.inner.search(queries, k, params=params)
        finally:
            self.busy.release()


class Untouched:
    """A host that must not be searched."""

    def __init__(self, inner: Any) -> None:
        self.d, self.ntotal = inner.d, inner.ntotal

    def search(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the host was searched")


def rows_of(count: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def flat(vectors: NDArray[np.float32]) -> faiss.Index:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def built(spec: str, vectors: NDArray[np.float32]) -> Any:
    index = faiss.index_factory(vectors.shape[1], spec, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIVFPQ):
        # Its training takes seconds: any lists and any codes do here.
        index.quantizer.add(vectors[: index.nlist])
        faiss.copy_array_to_vector(rows_of(index.pq.ksub, 9, vectors.shape[1]).ravel(), index.pq.centroids)
        index.is_trained = True
    else:
        index.train(vectors)
    index.add(vectors)
    return index


def best_of(vectors: NDArray[np.float32], live: NDArray[np.bool_], query: NDArray[np.float32], k: int) -> list[int]:
    scores = np.where(live, vectors.astype(np.float64) @ query.astype(np.float64), -np.inf)
    return [int(row) for row in np.argsort(-scores, kind="stable")[:k] if live[row]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70), st.floats(0, 1), st.integers(0, 90), st.integers(0, 9), st.booleans())
def test_finds_the_best_shown_rows_for_any_mask(size: int, share: float, k: int, seed: int, as_selector: bool) -> None:
    vectors, queries = rows_of(size, seed), rows_of(3, seed + 100)
    live = np.random.default_rng(seed).random(size) < share
    bits = np.packbits(live, bitorder="little")
    host, card = flat(vectors), Card(flat(vectors))
    selector = faiss.IDSelectorBitmap(bits)
    asked: dict[str, Any] = {"params": faiss.SearchParameters(sel=selector)} if as_selector else {"shown": bits}
    scores, rows = CardIndex(host, [card]).search(queries, k, **asked)
    assert scores.shape == rows.shape == (3, k) and scores.dtype == np.float32 and rows.dtype == np.int64
    for place_, query in enumerate(queries):
        wanted = best_of(vectors, live, query, k)
        assert rows[place_].tolist() == wanted + [-1] * (k - len(wanted))
        assert scores[place_][: len(wanted)] == pytest.approx([float(query @ vectors[row]) for row in wanted], abs=1e-5)
        assert np.isneginf(scores[place_][len(wanted) :]).all()


def test_hidden_rows_that_are_best_of_all_widen_the_search_only_where_they_must() -> None:
    vectors, query = rows_of(6000, 1), rows_of(2, 2)
    # The 900 best for the first query are hidden; what is hidden lies far from the second one, mostly.
    live = np.ones(6000, dtype=bool)
    live[best_of(vectors, live, query[0], 900)] = False
    card = Card(flat(vectors))
    search = CardIndex(Untouched(flat(vectors)), [card])
    scores, rows = search.search(query, 10, faiss.SearchParameters(), np.packbits(live, bitorder="little"))
    for place_ in range(2):
        assert rows[place_].tolist() == best_of(vectors, live, query[place_], 10)
    assert card.widths == [30, 60, 120, 240, 480, 960]
    assert np.isfinite(scores).all()


def test_past_2048_rows_the_host_answers_with_the_mask() -> None:
    vectors, query = rows_of(5000, 1), rows_of(2, 2)
    live = np.ones(5000, dtype=bool)
    live[best_of(vectors, live, query[0], 2500)] = False
    card = Card(flat(vectors))
    search = CardIndex(flat(vectors), [card])
    bits = np.packbits(live, bitorder="little")
    for given_ in ({"shown": bits}, {"params": faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))}):
        _, rows = search.search(query, 5, **given_)
        assert [row.tolist() for row in rows] == [best_of(vectors, live, each, 5) for each in query]
    assert max(card.widths) == MOST_ROWS
    card.widths.clear()
    _, rows = search.search(query, 3000)
    assert rows[1].tolist() == best_of(vectors, np.ones(5000, dtype=bool), query[1], 3000)
    # One row in 1,000, and 10 of them wanted: no width of a card's is likely to do.
    live = np.arange(5000) % 1000 == 7
    _, rows = search.search(query, 5, shown=np.packbits(live, bitorder="little"))
    assert rows[0].tolist() == best_of(vectors, live, query[0], 5)
    assert card.widths == []


@pytest.mark.parametrize("spec", ["Flat", "HNSW16,Flat", "IVF8,Flat", "PCA8,Flat", "IVF8,SQ8,Refine(Flat)"])
def test_the_host_of_any_kind_is_searched_under_the_mask(spec: str) -> None:
    vectors, query = rows_of(3000, 1), rows_of(2, 2)
    host = built(spec, vectors)
    if "IVF" in spec:
        faiss.extract_index_ivf(host).nprobe = 8
    live = np.arange(3000) % 600 == 7
    bits = np.packbits(live, bitorder="little")
    _, rows = CardIndex(host, [Card(flat(vectors))]).search(query, 5, shown=bits)
    assert set(rows.ravel().tolist()) <= {*np.flatnonzero(live).tolist(), -1}
    if "HNSW" not in spec:
        assert [sorted(row.tolist()) for row in rows] == [np.flatnonzero(live).tolist()] * 2


def test_a_selector_inside_nested_parameters_is_heeded() -> None:
    vectors, query = rows_of(300, 1), rows_of(1, 2)
    live = np.arange(300) % 2 == 0
    selector = faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
    inner = faiss.SearchParametersIVF(sel=selector, nprobe=4)
    for params in (
        faiss.IndexRefineSearchParameters(base_index_params=inner, k_factor=2.0),
        faiss.SearchParametersPreTransform(index_params=inner),
    ):
        _, rows = CardIndex(flat(vectors), [Card(flat(vectors))]).search(query, 7, params)
        assert rows[0].tolist() == best_of(vectors, live, query[0], 7)


def test_lists_are_probed_as_the_parameters_say_and_past_2048_by_the_host() -> None:
    vectors, query = rows_of(3000, 1), rows_of(4, 2)
    host = built("IVF16,Flat", vectors)
    card = Card(flattened(host))
    search = CardIndex(host, [card], probes=True)
    params = faiss.SearchParametersIVF(nprobe=3)
    assert np.array_equal(search.search(query, 9, params)[1], host.search(query, 9, params=params)[1])
    assert card.probes == [3]
    # Fewer rows in the one list that is probed than are wanted: what there is, as from the host.
    one = faiss.SearchParametersIVF(nprobe=1)
    expected = host.search(query, 600, params=one)[1]
    assert (expected < 0).any() and np.array_equal(search.search(query, 600, one)[1], expected)
    card.probes.clear()
    search.search(query, 9, faiss.SearchParametersIVF(nprobe=4000))
    assert card.probes == []


@pytest.mark.parametrize("spec", ["IVF16,Flat", "IVF16_HNSW8,SQ8", "IVF16_HNSW8,SQfp16", "IVF16,PQ2"])
def test_a_flattened_view_finds_what_the_index_finds(spec: str) -> None:
    vectors, query = rows_of(3000, 1, dim=16), rows_of(40, 2, dim=16)
    index = built(spec, vectors)
    index.nprobe = 5
    view = flattened(index)
    assert isinstance(faiss.downcast_index(view.quantizer), faiss.IndexFlat)
    scores, rows = index.search(query, 10)
    assert np.array_equal(view.search(query, 10)[1], rows)
    del view
    assert np.array_equal(index.search(query, 10)[0], scores)


def test_many_threads_share_the_copies_without_meeting_on_one() -> None:
    vectors, queries = rows_of(400, 1), rows_of(40, 2)
    cards = [Card(flat(vectors)) for _ in range(2)]
    search = CardIndex(Untouched(flat(vectors)), cards)
    expected = flat(vectors).search(queries, 5)[1]
    wrong: list[int] = []

    def ask(start: int) -> None:
        for place_ in range(start, 40, 4):
            if not np.array_equal(search.search(queries[place_ : place_ + 1], 5)[1][0], expected[place_]):
                wrong.append(place_)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and sum(len(card.widths) for card in cards) == 40


def test_a_card_that_fails_is_told_and_given_back() -> None:
    class Broken:
        def search(self, queries: Any, k: int, *, params: Any = None) -> Any:
            raise RuntimeError("Error in void f() at /x/GpuIndex.cu:65: Error: 'err' failed: out of memory\n more")

    search = CardIndex(flat(rows_of(9)), [Broken()])
    for _ in range(2):
        with pytest.raises(
            LabelspaceError, match=r"^the search on the card failed: 'err' failed: out of memory; serve"
        ):
            search.search(rows_of(1), 2)


def test_the_layered_index_searches_a_card_as_it_does_its_host() -> None:
    vectors, queries = rows_of(500, 1), rows_of(6, 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    host = flat(vectors)
    placed = CardIndex(Untouched(host), [Card(flat(vectors))])
    placed.host = host
    later = rows_of(3, 3)
    views = [LayeredIndex.over(base).hide(range(0, 500, 3)) for base in (host, placed)]
    views = [view.add(np.array([2, 900, 901]), later) for view in views]
    found = [view.search(queries, 12) for view in views]
    assert np.array_equal(found[0].rows, found[1].rows)
    assert found[0].scores == pytest.approx(found[1].scores, abs=1e-6)


def surface(monkeypatch: pytest.MonkeyPatch, made: list[Any]) -> None:
    """The names that faiss-gpu adds, as stand-ins in this machine's memory: which are called, and with what."""

    class Options:
        def __init__(self) -> None:
            self.shard = self.useFloat16 = self.use_cuvs = False

    class Config:
        def __init__(self) -> None:
            self.device, self.useFloat16, self.use_cuvs = 0, False, True

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802 - its name
            made.append(("scratch", size))

    def gpu_flat(resources: Resources, dim: int, metric: int, config: Config) -> Any:
        made.append(("flat", config.device, config.useFloat16, config.use_cuvs))
        return faiss.IndexFlat(dim, metric)

    def one(resources: Resources, card: int, index: Any, options: Options) -> Any:
        made.append(("lists", card, options.useFloat16, options.use_cuvs))
        return faiss.clone_index(index)

    def many(resources: list[Resources], index: Any, options: Options, gpus: list[int]) -> Any:
        made.append(("sharded lists", tuple(gpus), options.shard, options.use_cuvs))
        return faiss.clone_index(index)

    for name, value in {
        "GpuClonerOptions": Options,
        "GpuMultipleClonerOptions": Options,
        "GpuIndexFlatConfig": Config,
        "StandardGpuResources": Resources,
        "GpuIndexFlat": gpu_flat,
        "index_cpu_to_gpu": one,
        "index_cpu_to_gpu_multiple_py": many,
    }.items():
        monkeypatch.setattr(faiss, name, value, raising=False)
    monkeypatch.setattr(card_index, "free_bytes", lambda card: None)


def test_on_the_processor_an_index_is_placed_as_it_is() -> None:
    assert place(index := flat(rows_of(3)), Device("cpu")) is index is host_of(index)


@pytest.mark.parametrize("spec", ["Flat", "HNSW8,Flat", "IVF8,RaBitQ", "IVF8,PQ4x4"])
def test_what_a_card_cannot_read_is_copied_as_vectors(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    made: list[Any] = []
    surface(monkeypatch, made)
    monkeypatch.setattr(card_index, "_BLOCK_ROWS", 64)
    vectors, queries = rows_of(700, 1), rows_of(5, 2)
    index = built(spec, vectors)
    placed = place(index, Device("cuda", (2, 0), fp16=True), vectors)
    assert [call for call in made if call[0] == "flat"] == [("flat", 2, True, False), ("flat", 0, True, False)]
    assert ("scratch", SCRATCH) in made and host_of(placed) is placed.host and placed.ntotal == 700
    assert np.array_equal(placed.search(queries, 9)[1], flat(vectors).search(queries, 9)[1])
    stored = place(index, Device("cuda", (0,)))
    own = flat(index.reconstruct_n(0, 700))
    assert np.array_equal(stored.search(queries, 9)[1], own.search(queries, 9)[1])


@pytest.mark.parametrize("count", [0, 1, 2, 701])
def test_sharded_vectors_keep_their_rows(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    made: list[Any] = []
    surface(monkeypatch, made)
    vectors, queries = rows_of(count, 1), rows_of(5, 2)
    placed = place(flat(vectors), Device("cuda", (0, 1, 2), sharded=True))
    assert [call[1] for call in made if call[0] == "flat"] == [0, 1, 2]
    live = np.ones(count, dtype=bool)
    for query, rows in zip(queries, placed.search(queries, 4)[1], strict=True):
        wanted = best_of(vectors, live, query, 4)
        assert rows.tolist() == wanted + [-1] * (4 - len(wanted))


def test_lists_are_copied_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    surface(monkeypatch, made)
    vectors, queries = rows_of(900, 1), rows_of(5, 2)
    index = built("IVF16_HNSW8,SQ8", vectors)
    index.nprobe = 4
    expected = index.search(queries, 9)[1]
    for options, call in (
        ({}, ("lists", 0, False, False)),
        ({"sharded": True}, ("sharded lists", (0, 1), True, False)),
    ):
        placed = place(index, Device("cuda", (0, 1), **options))
        assert call in made and placed.probes
        assert np.array_equal(placed.search(queries, 9)[1], expected)


def test_memory_is_counted_by_hand() -> None:
    index = flat(rows_of(1001, dim=16))
    one, two = Device("cuda", (0,)), Device("cuda", (0, 1), sharded=True)
    assert card_bytes(index, one).kept == 1001 * (16 * 4 + 4)
    assert card_bytes(index, one).peak == 2 * 1001 * (16 * 4 + 4)
    assert card_bytes(index, two).kept == 501 * (16 * 4 + 4)
    half = card_bytes(index, Device("cuda", (0,), fp16=True))
    assert half.kept == 1001 * (16 * 2 + 4)
    # A block of float32 and its halves lie beside the copy: 512 k rows of 16.
    assert half.peak == 2 * half.kept + (512 << 10) * 16 * 6
    assert card_bytes(flat(rows_of(0)), one).peak == 0
    lists = built("IVF4,SQ8", rows_of(200, dim=16))
    expected = 4 * (16 * 4 + 4)
    for number in range(4):
        size = lists.invlists.list_size(number)
        for piece in (-(-size // 32) * 32 * 16, 8 * size):
            expected += -(-piece // 256) * 256
    assert card_bytes(lists, one).kept == expected < card_bytes(lists, one).peak


def test_what_does_not_fit_is_said_with_both_numbers() -> None:
    index = flat(rows_of(1000, dim=16))
    one = Device("cuda", (0,))
    needed = card_bytes(index, one).peak + SCRATCH
    check_fits(index, one, [needed])
    check_fits(index, one, [None])
    with pytest.raises(
        LabelspaceError,
        match=r"1,000 vectors of 16 numbers takes 0.54 GB .* card 0 has 0.54 GB free: choose fp16 or sharding",
    ):
        check_fits(index, one, [needed - 1])
    with pytest.raises(LabelspaceError, match=r"card 3 has 0.00 GB free: choose --device cpu"):
        check_fits(index, Device("cuda", (1, 3), fp16=True, sharded=True), [1 << 40, 1])


def test_a_copy_that_faiss_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    surface(monkeypatch, [])

    def refuse(*_: Any) -> Any:
        raise RuntimeError("Error in faiss::gpu at GpuIndex.cu:65: Error: 'x' failed: Invalid GPU device 0")

    monkeypatch.setattr(faiss, "GpuIndexFlat", refuse)
    with pytest.raises(
        LabelspaceError, match=r"^device cuda:0: the copy failed: 'x' failed: Invalid GPU device 0; serve"
    ):
        place(flat(rows_of(9)), Device("cuda", (0,)))


@pytest.mark.parametrize("spec", ["Flat", "HNSW16,SQ8", "IVF64_HNSW8,SQ8", "IVF64,PQ8"])
@pytest.mark.parametrize("fp16", [False, True])
def test_on_a_real_card_the_same_rows_are_found(spec: str, fp16: bool) -> None:
    missing = missing_for_cuda()
    if missing:
        pytest.skip(missing)
    vectors, queries = rows_of(20_000, 1, dim=32), rows_of(50, 2, dim=32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = built(spec, vectors)
    if "IVF" in spec:
        index.nprobe = 16
    placed = place(index, Device("cuda", (0,), fp16=fp16))
    live = np.random.default_rng(3).random(20_000) < 0.3
    rows = placed.search(queries, 20, shown=np.packbits(live, bitorder="little"))[1]
    assert live[rows].all()
    stored = index.reconstruct_n(0, 20_000) if "IVF" not in spec else None
    for query, found in zip(queries, rows, strict=True):
        if stored is None:
            selector = faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
            params = faiss.SearchParametersIVF(nprobe=16, sel=selector)
            expected = index.search(query[None], 20, params=params)[1][0].tolist()
        else:
            expected = best_of(stored, live, query, 20)
        assert len(set(expected) & set(found.tolist())) >= (18 if fp16 or "PQ" in spec else 20)
