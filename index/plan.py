"""What an index will take, before anything is built: its kind, memory, disk and build time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.build import (
    ADDING_EFFORT,
    BLOCK,
    TIMED,
    TRAINING_ROUNDS,
    exact_top,
    filled,
    graph_effort,
    overlap,
    trained_on,
    widest,
)
from index.clustered import clustered
from index.errors import InputError
from index.index_choice import choices, parse_spec
from index.index_size import index_bytes
from index.rescoring import candidates
from index.search_effort import core_of, efforts, set_effort, set_list_effort

# An example memory finds with less effort, and nothing keeps its vectors beside it.
_MEMORY_EFFORT = 200
# Queries to tune on, as a re-index takes them: they are searched exactly, and some times as tuned.
TUNED_ON, _SEARCHES = 1_000, 6
# Lists probed when an inverted file is tuned: from 1, until what is found as a rule, and there once more.
_PROBED_AT_LAST = 16
_CALIBRATED_GRAPH, _CALIBRATED_OTHER, _SEARCHED = 8_000, 40_000, 200
# Lists of the small inverted file, and how many of them are probed.
_LISTS, _PROBED = 64, (1, 8)
# efSearch at which a graph is measured, and how many are searched for.
_BEAM, _TOP = 64, 10
# What finding a list takes is measured among no more of them, on so many vectors, in so many rounds of training.
_MOST_LISTS, _PLACED, _ROUNDS, _PRODUCTS = 4_096, 3_000, 3, 10**10
# The more vectors a graph has, the more are compared with one that is added, and the fewer are in the cache:
# the mean time grows with this power of their number, measured from 8,000 to 1,000,000. Among centres, which are far
# from each other, more are compared: measured from 512 to 16,384.
_GRAPH_GROWTH, _CENTRES_GROWTH = 0.36, 0.6
# Codes that lose this much of the true top 10 of few vectors, however many are read, may lose too much of many.
_LOST = 0.002
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds on one thread of this machine.

    trained: to train codes. added: to add one vector, beside finding its list; in a graph, to one of `among` vectors.
    searched: to search these for one query; in an inverted file, what that takes beside reading. compared: of one
    dimension of one vector with one centre, in a round of training. exact: of one dimension with one of many vectors,
    in exact search. assigned: to find the list of one vector among `lists`, and placed: to put one centre among them,
    where centres have a graph. read: one vector of a list that is probed. lost: share of the true top 10 that the codes
    lose however many are read.
    """

    trained: float
    added: float
    among: int
    searched: float
    compared: float
    exact: float
    assigned: float = 0.0
    placed: float = 0.0
    lists: int = 1
    read: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """bytes: of the finished index, in memory as on disk. seconds: to build and tune it; at_most: codes as coarse may
    miss the recall wanted, then all efforts are tried, and the seconds are those of that. building: bytes of memory
    that takes at most, beside the program itself and vectors that are a memory map."""

    factory: str
    vectors: int
    bytes: int
    seconds: float
    building: int
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The label index, the example memory's where there are examples, and of both together: `memory` bytes while
    serving, `disk` bytes of the files (with the label vectors as floats), and seconds on `threads` threads."""

    labels: IndexPlan
    examples: IndexPlan | None
    dim: int
    threads: int
    memory: int
    disk: int
    seconds: float


def plan(
    labels: int,
    dim: int,
    calibrate: Callable[[str, int, int], Calibration],
    *,
    spec: str = "auto",
    memory_budget: int | None = None,
    threads: int = 1,
    examples: int = 0,
) -> Plan:
    """What `labels` labels and `examples` remembered examples of `dim` dimensions take.

    calibrate: factory string, dim and efConstruction to what this machine needs for it, see `calibrated`. The first
    choice is planned; where it misses its recall, the build goes on with the next. Raises InputError for a spec that
    FAISS cannot read and where memory_budget, in bytes for both indexes, is too small.
    """
    if labels < 1 or dim < 1 or threads < 1 or examples < 0:
        raise InputError(
            f"plan: {labels} labels, {dim} dimensions, {threads} threads have to be 1 or more, {examples} examples 0"
        )
    remembered = None
    if examples:
        factory = choices(examples, dim, rescore=False)[0]
        remembered = _planned(factory, examples, dim, _MEMORY_EFFORT, calibrate)
        if memory_budget is not None:
            memory_budget -= remembered.bytes
    factory = choices(labels, dim, rescore=True, memory_budget=memory_budget)[0] if spec == "auto" else spec
    index = _planned(factory, labels, dim, graph_effort(labels), calibrate)
    if memory_budget is not None and index.bytes > memory_budget:
        raise InputError(f"index {spec!r}: takes {index.bytes:,} bytes; memory has {memory_budget:,} for it")
    parts = [index] if remembered is None else [index, remembered]
    memory = sum(part.bytes for part in parts)
    return Plan(
        index,
        remembered,
        dim,
        threads,
        memory,
        memory + _FLOAT * dim * labels,
        sum(part.seconds for part in parts) / threads,
    )


def _planned(
    factory: str, count: int, dim: int, effort: int, calibrate: Callable[[str, int, int], Calibration]
) -> IndexPlan:
    empty = parse_spec(factory, dim)
    size, core = index_bytes(empty, count), core_of(empty)
    sample = 0 if empty.is_trained else trained_on(core, count)
    # A block is read, made contiguous, and compared with as many centres at once as FAISS takes.
    building = size + _FLOAT * dim * (2 * min(count, BLOCK) + sample)
    measured = calibrate(factory, dim, effort)
    at_most = measured.lost > _LOST and not isinstance(core, faiss.IndexFlat)
    seconds = measured.trained + _filling(core, count, sample, measured)
    if isinstance(core, faiss.IndexFlat):
        seconds += measured.searched * count / measured.among * TIMED
    else:
        seconds += measured.exact * count * dim * TUNED_ON + _tuning(empty, count, measured, at_most=at_most)
    return IndexPlan(factory, count, size, seconds, building, at_most)


def _filling(core: Any, count: int, sample: int, measured: Calibration) -> float:
    """Lists found by training, and the list of each vector, which training codes needs too for some; and adding."""
    added = measured.added * count
    if hasattr(core, "hnsw"):
        return added * _growth(count, measured.among, _GRAPH_GROWTH)
    if not isinstance(core, faiss.IndexIVF):
        return added
    lists = int(core.nlist)
    rounds = measured.compared * TRAINING_ROUNDS * sample * lists * int(core.d)
    growth = _list_growth(core, measured)
    coded = min(sample, int(core.train_encoder_num_vectors()) or sample) if core.by_residual else 0
    return added + rounds + growth * (measured.placed * lists + measured.assigned * (count + coded))


def _tuning(index: faiss.Index, count: int, measured: Calibration, *, at_most: bool) -> float:
    """Searches for all queries with ever more effort, and for some of them one by one."""
    core: Any = core_of(index)
    levels = [setting for level in efforts(index) for setting in level]
    if hasattr(core, "hnsw"):
        tried = sum(setting["efSearch"] for setting in levels) / _BEAM if at_most else _SEARCHES
        return measured.searched * _growth(count, measured.among, _GRAPH_GROWTH) * (tried * TUNED_ON + TIMED)
    if not isinstance(core, faiss.IndexIVF):
        return measured.searched * count / measured.among * (2 * len(levels) * TUNED_ON + TIMED)
    probed = [setting["nprobe"] for setting in levels]
    if not at_most:
        probed = [probes for probes in probed if probes <= _PROBED_AT_LAST]
        probed.append(probed[-1])
    read = measured.read * count / int(core.nlist)
    growth = _list_growth(core, measured)
    searched = measured.searched + measured.assigned * growth
    return sum(searched + read * probes for probes in probed) * TUNED_ON + (searched + read * probed[-1]) * TIMED


def _list_growth(core: Any, measured: Calibration) -> float:
    """How many times as long finding a list takes as among those that were measured; a graph leaves most out."""
    graph = hasattr(faiss.downcast_index(core.quantizer), "hnsw")
    return _growth(int(core.nlist), measured.lists, _CENTRES_GROWTH if graph else 1.0)


def _growth(count: int, among: int, power: float) -> float:
    """How many times as long adding takes on average until there are `count`, as it took until there were `among`."""
    return float(max(1.0, count / among) ** power)


def calibrated(factory: str, dim: int, effort: int) -> Calibration:
    """Measured here in some seconds, on one thread: a small index of the same kind is built over made-up vectors."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        core = core_of(parse_spec(factory, dim))
        count = _CALIBRATED_GRAPH if hasattr(core, "hnsw") else _CALIBRATED_OTHER
        vectors, queries = clustered(count, dim, TUNED_ON)
        truth: list[NDArray[np.int64]] = []
        exact = _timed(lambda: truth.append(exact_top(vectors, queries, _TOP))) / (count * len(queries) * dim)
        if isinstance(core, faiss.IndexIVF):
            return _listed(factory, vectors, queries, truth[0], exact)
        return _unlisted(factory, vectors, queries, truth[0], exact, effort)
    finally:
        faiss.omp_set_num_threads(threads)


def _unlisted(
    factory: str,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    truth: NDArray[np.int64],
    exact: float,
    effort: int,
) -> Calibration:
    begun: list[faiss.Index] = []
    filling, count = _timed(lambda: begun.append(filled(factory, vectors, effort))), len(vectors)
    index, held = begun[0], count
    few, wide = queries[:_SEARCHED], candidates(_TOP, widest(index))
    lost = _lost(index, few, truth[:_SEARCHED])
    added = filling
    if not hasattr(core_of(index), "hnsw"):
        # Codes take as long to add again, and need not be trained for it.
        added, held = min(filling, _timed(lambda: index.add(vectors))), 2 * count
    set_effort(index, {"efSearch": _BEAM})
    searched = _timed(lambda: [index.search(query[None], wide) for query in few]) / len(few)
    return Calibration(filling - added, added / count, held, searched, 0.0, exact, lost=lost)


def _listed(
    factory: str, vectors: NDArray[np.float32], queries: NDArray[np.float32], truth: NDArray[np.int64], exact: float
) -> Calibration:
    """The lists are measured as planned, and the codes in few lists, which are as fast found for many as for one."""
    count, dim = vectors.shape
    lists = min(_MOST_LISTS, int(core_of(parse_spec(factory, dim)).nlist), count // 4)
    core: Any = core_of(parse_spec(re.sub(r"IVF\d+[kM]?", f"IVF{lists}", factory), dim))
    inside = int(core.d)
    # What transforms vectors need not be known to compare as many of its dimensions.
    points = np.ascontiguousarray(clustered(count, inside, 0)[0] if inside != dim else vectors)
    points = points[: max(2 * lists, min(count, _PRODUCTS // (lists * inside)))]
    core.cp.niter, core.cp.min_points_per_centroid, core.cp.max_points_per_centroid = _ROUNDS, 1, count
    training = _timed(lambda: core.train_q1(len(points), faiss.swig_ptr(points), False, core.metric_type))
    quantizer, placing = faiss.downcast_index(core.quantizer), 0.0
    if hasattr(quantizer, "hnsw"):
        centres = quantizer.reconstruct_n(0, lists)
        quantizer.reset()
        placing = _timed(lambda: quantizer.add(centres))
    set_list_effort(core, ADDING_EFFORT)
    assigned = _timed(lambda: quantizer.search(points[:_PLACED], 1)) / min(_PLACED, len(points))
    compared = max(0.0, training - placing) / (_ROUNDS * len(points) * lists * inside)

    index = parse_spec(re.sub(r"IVF\d+[kM]?(_HNSW\d*)?", f"IVF{min(_LISTS, lists)}", factory), dim)
    small: Any = core_of(index)
    small.cp.niter, small.cp.min_points_per_centroid = 1, 1
    trained = _timed(lambda: index.train(vectors))
    added = _timed(lambda: index.add(vectors)) / count
    lost, wide, seconds = _lost(index, queries[:_SEARCHED], truth[:_SEARCHED]), candidates(_TOP, widest(index)), []
    for probes in _PROBED:
        set_effort(index, {"nprobe": probes})
        seconds.append(_timed(lambda: index.search(queries, wide)) / len(queries))
    each = count / int(small.nlist)
    read = max(0.0, seconds[1] - seconds[0]) / (each * (_PROBED[1] - _PROBED[0]))
    searched = max(0.0, seconds[0] - read * each * _PROBED[0])
    return Calibration(trained, added, count, searched, compared, exact, assigned, placing / lists, lists, read, lost)


def _lost(index: faiss.Index, queries: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Share of the true rows that the hardest search does not find among the most candidates that are scored again."""
    for level in efforts(index):
        set_effort(index, level[-1])
    return 1.0 - overlap(index.search(queries, candidates(_TOP, widest(index)))[1], truth)


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
