"""Sealing: the tail of a delta goes into a graph that is as fast to search as a built index."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from index.delta import Arrivals, Delta
from index.layer import Layer, Rows
from index.masked_search import BuiltIndex
from index.row_mask import RowMask

# A graph over vectors as they are: what was added is found with its exact score, and can be taken out again.
_FACTORY = "HNSW32,Flat"
BUILD_EFFORT, SEARCH_EFFORT = 80, 96
# A part above this stays as it is, and the next one begins: each sealing copies the newest part.
MOST_ROWS = 250_000


@dataclass(frozen=True, slots=True, eq=False)
class Sealed:
    """What `seal` made of a delta, to be applied to one that came of it.

    before: the parts that it was made beside; the new one, `built`, comes after them or replaces the last. rows: (n,)
    int64, the new part's. places: (m,) int64, where the first m of them stood in the part replaced. arrivals: (n - m,)
    int64, ascending, of the others, which were in the tail.
    """

    line: Arrivals
    before: tuple[BuiltIndex, ...]
    built: BuiltIndex
    replaces: bool
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    arrivals: NDArray[np.int64]


def seal(delta: Delta, *, threads: int = 1, most_rows: int = MOST_ROWS) -> Sealed:
    """The delta's tail in a graph: one more part, or the last part again with the tail's vectors added to a copy of it.

    Takes seconds for thousands of vectors and changes nothing: it is for a thread of its own, beside readers and
    writers. A part of which more than half counts no more is built anew of the rest.
    """
    rows, arrivals, vectors = delta.tail.live()
    last = delta.parts[-1] if delta.parts else None
    if last is not None and last.shown.size + len(rows) > most_rows and 2 * last.shown.count >= last.shown.size:
        last = None
    before_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        if last is None:
            graph, places, old = _graph(vectors.shape[1]), np.zeros(0, np.int64), np.zeros(0, np.int64)
        elif 2 * last.shown.count < last.shown.size:
            graph, places, old = _graph(vectors.shape[1]), last.shown.rows(), last.live()
            assert last.built.fetch is not None  # noqa: S101 - sealed parts keep their vectors
            graph.add(last.built.fetch(places))
        else:
            assert last.rows is not None  # noqa: S101 - only the base has none
            graph, places, old = faiss.clone_index(last.built.host), np.arange(last.shown.size), last.rows.of_place
        graph.add(vectors)
    finally:
        faiss.omp_set_num_threads(before_threads)
    before = tuple(part.built for part in delta.parts)
    new = np.concatenate([old, rows])
    return Sealed(delta.tail.line, before, BuiltIndex.of(graph), last is not None, new, places, arrivals.copy())


def apply(sealed: Sealed, delta: Delta) -> Delta:
    """The delta with what was sealed of it, or of one that it came of; else, or after another sealing, the same delta.

    What was hidden or replaced since then is hidden in the new part too, and what was added stays in the tail.
    """
    if delta.tail.line is not sealed.line or tuple(part.built for part in delta.parts) != sealed.before:
        return delta
    kept, old = delta.parts, np.zeros(0, dtype=np.bool_)
    if sealed.replaces:
        kept, old = delta.parts[:-1], delta.parts[-1].shown.has(sealed.places)
    _, arrivals, _ = delta.tail.live()
    shown = np.concatenate([old, np.isin(sealed.arrivals, arrivals)])
    layer = Layer(sealed.built, RowMask.of(shown), Rows.of(sealed.rows, np.flatnonzero(shown)))
    return Delta((*kept, layer), delta.tail.later_than(sealed.arrivals))


def _graph(dim: int) -> faiss.Index:
    graph = faiss.index_factory(dim, _FACTORY, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = BUILD_EFFORT, SEARCH_EFFORT
    return graph
