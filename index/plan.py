"""What an index will take, before anything is built: its kind, memory, disk and build time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss

from index.build import BLOCK, TIMED, TRAINING_ROUNDS, exact_top, filled, graph_effort, trained_on, widest
from index.clustered import clustered
from index.errors import InputError
from index.index_choice import choices, parse_spec
from index.index_size import index_bytes
from index.rescoring import candidates
from index.search_effort import core_of, set_effort

# An example memory finds with less effort, and nothing keeps its vectors beside it.
_MEMORY_EFFORT = 200
# Queries to tune on, as a re-index takes them: they are searched exactly, and some times as tuned.
TUNED_ON, _SEARCHES = 1_000, 6
_CALIBRATED_GRAPH, _CALIBRATED_OTHER, _SEARCHED, _LISTS = 8_000, 60_000, 200, 64
# The more vectors a graph has, the more are compared with one that is added, and the fewer are in the cache:
# the mean time grows with this power of their number, measured from 8,000 to 1,000,000.
_GRAPH_GROWTH = 0.36
# A round of training compares vectors with centres, and then moves these.
_ROUND = 1.2
# A graph over centres finds the nearest in the time in which a vector is compared with so many at once.
_COMPARED_IN_GRAPH = 24_000
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds on one thread of this machine.

    trained: to train codes. added: to add one vector, beside finding its list; in a graph, to one of `among` vectors.
    searched: to search these for one query, in an inverted file some lists. compared: of one dimension of one vector
    with one of many others at once, as training and adding to lists do. exact: the same, in exact search.
    """

    trained: float
    added: float
    among: int
    searched: float
    compared: float
    exact: float


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """bytes: of the finished index, in memory as on disk. seconds: to build and tune it. building: bytes of memory that
    takes at most, beside the program itself and vectors that are a memory map."""

    factory: str
    vectors: int
    bytes: int
    seconds: float
    building: int


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
    return IndexPlan(factory, count, size, _seconds(core, count, sample, calibrate(factory, dim, effort)), building)


def _seconds(core: Any, count: int, sample: int, measured: Calibration) -> float:
    dim, added = int(core.d), measured.trained + measured.added * count
    searched = measured.searched * count / measured.among
    if isinstance(core, faiss.IndexFlat):
        return added + searched * TIMED
    tuned = measured.exact * count * dim * TUNED_ON
    if hasattr(core, "hnsw"):
        growth = _growth(count, measured.among)
        return added * growth + tuned + measured.searched * growth * (_SEARCHES * TUNED_ON + TIMED)
    if isinstance(core, faiss.IndexIVF):
        lists = int(core.nlist)
        centres = _COMPARED_IN_GRAPH if hasattr(faiss.downcast_index(core.quantizer), "hnsw") else lists
        compared = _ROUND * TRAINING_ROUNDS * sample * lists + count * centres
        tuned += measured.searched * (_SEARCHES * TUNED_ON + TIMED)
        return added + compared * dim * measured.compared + tuned
    return added + tuned + searched * (TUNED_ON + TIMED)


def _growth(count: int, among: int) -> float:
    """How many times as long adding takes on average until there are `count`, as it took until there were `among`."""
    return float(max(1.0, count / among) ** _GRAPH_GROWTH)


def calibrated(factory: str, dim: int, effort: int) -> Calibration:
    """Measured here in some seconds, on one thread: a small index of the same kind is built over made-up vectors."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        return _calibrated(factory, dim, effort)
    finally:
        faiss.omp_set_num_threads(threads)


def _calibrated(factory: str, dim: int, effort: int) -> Calibration:
    core = core_of(parse_spec(factory, dim))
    count = _CALIBRATED_GRAPH if hasattr(core, "hnsw") else _CALIBRATED_OTHER
    vectors = clustered(count, dim, 0)[0]
    compared = 0.0
    if isinstance(core, faiss.IndexIVF):
        centres = faiss.IndexFlatIP(dim)
        centres.add(clustered(core.nlist, dim, 0)[0])
        compared = _timed(lambda: centres.search(vectors, 1)) / (count * core.nlist * dim)
        # What lists cost is counted apart.
        factory = re.sub(r"IVF\d+(_HNSW\d*)?(?=,)", f"IVF{_LISTS}", factory)
    exact = _timed(lambda: exact_top(vectors, vectors[:TUNED_ON], 10)) / (count * min(count, TUNED_ON) * dim)
    begun: list[faiss.Index] = []
    filling = _timed(lambda: begun.append(filled(factory, vectors, effort)))
    index = begun[0]
    graph = hasattr(core, "hnsw")
    # Codes take as long to add again, and need not be trained for it.
    added = filling if graph else min(filling, _timed(lambda: index.add(vectors)))
    # About as many rows are read as by a search of many more and shorter lists.
    set_effort(index, {"efSearch": 64, "nprobe": _LISTS // 32})
    wide = candidates(10, widest(index))
    queries = vectors[:: max(1, count // _SEARCHED)]
    searched = _timed(lambda: [index.search(query[None], wide) for query in queries]) / len(queries)
    held = count if graph else 2 * count
    return Calibration(filling - added, added / count, held, searched, compared, exact)


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
