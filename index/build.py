"""Vectors to a FAISS index that is known to find what exact search finds, and such an index opened again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError, InputError
from index.index_choice import EXACT_BELOW, choices, parse_spec, said_by_faiss
from index.index_size import index_bytes
from index.rescoring import candidates
from index.search_effort import core_of, efforts, set_effort, set_list_effort, stored_in

_RECALL_AT = 10
# Built once and searched many times: a graph built with more effort needs a third less of it in every search.
BUILD_EFFORT = 500
_MANY, BUILD_EFFORT_OF_MANY = 100_000, 100
# efSearch where a graph finds the lists: a vector put into a wrong list is not found again. 16, FAISS's own, put 1 of
# 15 there, 128 put 1 of 3,000.
ADDING_EFFORT, SEARCHING_EFFORT = 128, 64
# Vectors read at a time: a memory map may be larger than memory.
BLOCK = 50_000
# Lists are found by 10 rounds over 40 vectors each; more of either hardly move them. Codes are trained on as many.
TRAINED_PER_LIST, TRAINING_ROUNDS, _TRAINED_LEAST = 40, 10, 50_000
# Of so many candidates for each row wanted, the best are scored again where that is asked for.
_RESCORE = (1.2, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_WIDEST_OF_BYTES = 2.0
# Where four times the effort finds less than this more, the codes are what loses the rest.
_GAIN = 0.0005
TIMED = 200
SLOWEST_MS = 1.0


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What was built: FAISS factory string, search effort (efSearch or nprobe; 0 when exact), the recall that it
    measured, what one search takes, and how many bytes a vector.

    recall: share of the exact top 10 that the index finds, mean over `queries` held-out queries. search: all settings
    of the search by name: efSearch, nprobe, k_factor, and rescore, the candidates scored again for each row wanted.
    latency_ms: median over single queries on one thread, of the index alone; 0 where there was no query.
    """

    factory: str
    effort: int
    recall: float
    queries: int
    vectors: int
    search: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0
    bytes_per_vector: float = 0.0

    @property
    def rescore(self) -> float:
        """Candidates to score again by their vectors for each row wanted; 1 where the index' own scores stand."""
        return self.search.get("rescore", 1.0)


def build_index(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    *,
    spec: str = "auto",
    target: float = 0.99,
    memory_budget: int | None = None,
    build_effort: int | None = None,
    exact_below: int = EXACT_BELOW,
    rescore: bool = False,
) -> tuple[faiss.Index, IndexReport]:
    """An inner-product index over `vectors` (n, dim) float32, which may be a memory map; rows keep their numbers.

    spec: a FAISS factory string; "auto" picks by n, dim and memory_budget (bytes of the finished index): exact when
    n < exact_below, else the first of `index_choice.choices` that reaches `target` in SLOWEST_MS. Each gets the
    smallest search effort whose recall@10 on `queries` (m, dim) reaches it; where none does, the one that found most
    stands, and the report says what was reached. build_effort: efConstruction of a graph (Malkov & Yashunin 2018); more
    makes a better one more slowly; None: less for more vectors. rescore: the vectors are kept beside the index, and a
    search may score a few more than k candidates again by them (`rescoring.rescored`); `report.rescore` says how many.
    Raises InputError for a spec that FAISS cannot build over these vectors, and where memory_budget is too small.
    """
    count, dim = vectors.shape
    if spec == "auto":
        specs = choices(count, dim, rescore=rescore, memory_budget=memory_budget, exact_below=exact_below)
    else:
        specs = (spec,)
    effort = graph_effort(count) if build_effort is None else build_effort
    truth: NDArray[np.int64] | None = None
    built: list[tuple[faiss.Index, IndexReport]] = []
    for each in specs:
        index = filled(each, vectors, effort)
        if isinstance(core_of(index), faiss.IndexFlat):
            return index, _report(each, index, {}, 1.0, queries)
        truth = exact_top(vectors, queries, _RECALL_AT) if truth is None else truth
        search, recall = _tune(index, queries, truth, target, rescore=rescore)
        report = _report(each, index, search, recall, queries)
        built = [*built[-1:], (index, report)]
        if recall >= target and report.latency_ms <= SLOWEST_MS:
            break
        built.sort(key=lambda one: _worth(one[1], target))
    return built[-1]


def _worth(report: IndexReport, target: float) -> tuple[float, float]:
    """What reaches the target goes before what does not; then the faster, or that which finds more."""
    if report.recall >= target:
        return target, -report.latency_ms
    return report.recall, 0.0


def open_index(path: Path, *, mmap: bool = True) -> faiss.Index:
    """The index in a file. mmap: its codes and links stay there, and processes that open it share them in memory; such
    an index is only read. Raises BundleError when the file is missing or damaged."""
    try:
        if not mmap:
            return faiss.read_index(str(path))
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        said = said_by_faiss(error)
        raise BundleError(
            f"{path}: is no index that FAISS reads ({said}); restore the bundle or export it again"
        ) from (error)


def filled(spec: str, vectors: NDArray[np.float32], build_effort: int) -> faiss.Index:
    """An index by factory string over `vectors` (n, dim), trained on a sample and filled in blocks, not yet tuned.

    Raises InputError naming the string where FAISS cannot build it over these.
    """
    count, dim = vectors.shape
    index = parse_spec(spec, dim)
    core = core_of(index)
    if hasattr(core, "hnsw"):
        core.hnsw.efConstruction = build_effort
    if isinstance(core, faiss.IndexIVF):
        core.cp.niter = TRAINING_ROUNDS
        # FAISS says on standard error when a list has fewer to be trained on; few vectors have no more.
        core.cp.min_points_per_centroid = 1
    set_list_effort(core, ADDING_EFFORT)
    try:
        if not index.is_trained:
            index.train(_sample(vectors, trained_on(core, count)))
        for start in range(0, count, BLOCK):
            index.add(np.ascontiguousarray(vectors[start : start + BLOCK], dtype=np.float32))
        set_list_effort(core, SEARCHING_EFFORT)
    except RuntimeError as error:
        raise InputError(
            f"index {spec!r}: FAISS cannot build it over {count:,} vectors of {dim} dimensions ({said_by_faiss(error)})"
        ) from error
    return index


def graph_effort(count: int) -> int:
    """efConstruction for so many vectors: all of BUILD_EFFORT where that takes minutes."""
    return BUILD_EFFORT if count < _MANY else BUILD_EFFORT_OF_MANY


def trained_on(core: faiss.Index, count: int) -> int:
    """How many of `count` vectors such an index is trained on."""
    if isinstance(core, faiss.IndexIVF):
        return min(count, max(_TRAINED_LEAST, TRAINED_PER_LIST * int(core.nlist)))
    return min(count, _TRAINED_LEAST)


def _sample(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Rows (size, dim) drawn by chance, always the same, in their order: a memory map is read from front to back."""
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:size])
    return np.ascontiguousarray(vectors[rows], dtype=np.float32)


def _tune(
    index: faiss.Index, queries: NDArray[np.float32], truth: NDArray[np.int64], target: float, *, rescore: bool
) -> tuple[dict[str, float], float]:
    """Set the least search effort that reaches the target, else that which finds most; returns it and its recall."""
    wide = widest(index) if rescore else 1.0
    best: tuple[dict[str, float], float] = {}, -1.0
    reached: list[tuple[float, float]] = []
    for level in efforts(index):
        for search in level:
            set_effort(index, search)
            found = index.search(queries, candidates(_RECALL_AT, wide))[1]
            for factor in (1.0, *(factor for factor in _RESCORE if factor <= wide)):
                # Scored exactly, what is in the true top 10 comes before all that is not: it need only be a candidate.
                recall = overlap(found[:, : candidates(_RECALL_AT, factor)], truth)
                if recall >= target and factor < wide:
                    # Asked for fewer, blocks of codes do not give just the first of more.
                    recall = overlap(index.search(queries, candidates(_RECALL_AT, factor))[1], truth)
                if recall > best[1]:
                    best = ({**search, "rescore": factor} if factor > 1.0 else search), recall
                if recall >= target:
                    return best
        effort = next(iter(level[0].values()), 0.0)
        if any(4 * at <= effort and best[1] - then < _GAIN for at, then in reached):
            break
        reached.append((effort, best[1]))
    set_effort(index, best[0])
    return best


def widest(index: faiss.Index) -> float:
    """Floats need no candidates beyond k; codes of a byte a number keep the order nearly, coarser ones far less."""
    stored: Any = stored_in(index)
    if isinstance(stored, (faiss.IndexFlat, faiss.IndexIVFFlat)):
        return 1.0
    return _WIDEST_OF_BYTES if stored.code_size >= index.d else _RESCORE[-1]


def _report(
    spec: str, index: faiss.Index, search: dict[str, float], recall: float, queries: NDArray[np.float32]
) -> IndexReport:
    count = int(index.ntotal)
    effort = int(search.get("efSearch", search.get("nprobe", 0)))
    k = candidates(_RECALL_AT, search.get("rescore", 1.0))
    size = index_bytes(index, count) / count if count else 0.0
    return IndexReport(
        spec, effort, recall, len(queries), count, search, round(_latency(index, queries, k), 3), round(size, 1)
    )


def _latency(index: faiss.Index, queries: NDArray[np.float32], k: int) -> float:
    """Median milliseconds of a search for k of one query, on one thread."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        taken = []
        for at in range(min(TIMED, len(queries)) if index.ntotal else 0):
            began = time.perf_counter()
            index.search(queries[at : at + 1], k)
            taken.append(time.perf_counter() - began)
    finally:
        faiss.omp_set_num_threads(threads)
    return float(np.median(taken)) * 1e3 if taken else 0.0


def exact_top(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows (m, k) int64 of the k largest inner products, by exact search; vectors may be a memory map."""
    k = min(k, len(vectors))
    scores, rows = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK], dtype=np.float32)
        more, found = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        scores, rows = np.concatenate([scores, more], axis=1), np.concatenate([rows, found + start], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of each row of `truth` (m, k) that stands in the same row of `found`; 1.0 for no rows."""
    if not truth.size:
        return 1.0
    if len(found) != len(truth):
        raise ValueError(f"overlap: {len(found)} rows found, {len(truth)} true")
    # A column at a time: comparing all with all would need k times the memory of what was found.
    there = sum(int(np.count_nonzero((found == true[:, None]).any(axis=1))) for true in truth.T)
    return there / truth.size
