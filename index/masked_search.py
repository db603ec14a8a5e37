"""One built index, searched for the best of those of its rows that are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.card_index import host_of
from index.label_vector import unit
from index.rescoring import candidates, rescored
from index.row_mask import RowMask
from index.search_effort import core_of

Found = tuple[NDArray[np.float32], NDArray[np.int64]]

# How many vectors are compared, each fetched by its row, in the time of one step of efSearch, and of one row of an
# inverted list: measured by benchmarks/adding.py.
_ROWS_PER_STEP, _ROWS_PER_LISTED = 12.0, 0.3
# From here on fetching rows is slower than reading past the others.
_MOST_FETCHED = 32_768
# The vectors of so many fit in a processor's cache.
_BLOCK = 1_024
# So few are always compared one by one.
_FEW = 2_048
# Above this share of rows shown, a search that asks for a few more than k has k that are shown, mostly.
_MOSTLY = 0.5
_NEAR = 64
# Where the share shown near a query is this much below that of all rows, the mask is not one of chance: the best rows
# shown are then farther away than a beam or a few lists reach.
_SPARSER = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class BuiltIndex:
    """A FAISS index of inner products (or its copy on a card, see index/card_index.py), and what exact search needs.

    index: `.d`, `.ntotal`, `.search(queries, k, params=...)`. core: the graph or inverted file inside, the index itself
    where there is none. fetch: vectors (m, dim) float32 of rows (m,) int64; None where they cannot be had one by one.
    """

    index: Any
    host: faiss.Index
    core: faiss.Index
    fetch: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None
    # How many candidates a re-scoring index asks the one inside for, for each row that it gives.
    candidates: float = 1.0
    # How many are asked of the index itself, to be scored again by what `fetch` gives.
    rescore: float = 1.0

    @classmethod
    def of(
        cls,
        index: Any,
        vectors: NDArray[np.float32] | None = None,
        as_is: NDArray[np.int64] | None = None,
        rescore: float = 1.0,
    ) -> BuiltIndex:
        """vectors: (ntotal, dim), of any length, of which the index keeps rounded codes: a memory map may do.

        The index has them at unit length but for the rows `as_is` (m,), which it has as they are. rescore: candidates
        for each row wanted that are scored again by them; 1 leaves the scores of the index.
        """
        host = host_of(index)
        factor = host.k_factor if isinstance(host, faiss.IndexRefine) else 1.0
        return cls(index, host, core_of(host), _fetcher(host, vectors, as_is), factor, rescore)

    @property
    def exact(self) -> bool:
        """Whether every search of it reads all rows, and keeps all of their digits."""
        return isinstance(self.core, faiss.IndexFlat)

    def search(self, queries: NDArray[np.float32], k: int, shown: RowMask) -> Found:
        """Scores and rows (n, min(k, rows shown)), best first, of contiguous queries (n, dim); none is ever missing.

        With few rows shown, these are compared one by one. A graph or inverted file is first asked what is near each
        query. Where about as large a share is shown there as everywhere, the search goes on under the mask, with more
        effort by that share; elsewhere it would find rows that are shown, but not the best: all of them are read.
        """
        k = min(k, shown.count)
        if self.rescore > 1.0 and self.fetch is not None and not self.few(shown.count, k):
            rows = self._nearest(queries, min(candidates(k, self.rescore), shown.count), shown)[1]
            return rescored(queries, rows, k, self.fetch)
        return self._nearest(queries, k, shown)

    def _nearest(self, queries: NDArray[np.float32], k: int, shown: RowMask) -> Found:
        """`search`, by the scores of the index itself."""
        if k < 1 or not len(queries):
            return np.zeros((len(queries), k), dtype=np.float32), np.zeros((len(queries), k), dtype=np.int64)
        if self.few(shown.count, k) and not (self.exact and shown.bits is None):
            return self.best_of(queries, k, shown.rows())
        if shown.bits is None or not (hasattr(self.core, "hnsw") or self._listed):
            scores, rows = self._ask(queries, k, self._effort(k), shown)
        elif self.host is not self.index:
            scores, rows = self._ask(queries, k, self._effort(k) / (shown.count / shown.size), shown)
        else:
            scores, rows = self._near(queries, k, shown)
        return self._completed(queries, k, shown, scores, rows)

    def few(self, count: int, k: int) -> bool:
        """Whether comparing `count` rows one by one is faster than a search for k under a mask that shows them."""
        if self.fetch is None or count > _MOST_FETCHED:
            return False
        return count <= _FEW or count * count <= self._work(self._effort(k)) * self.index.ntotal

    def best_of(self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64]) -> Found:
        """The same of these rows (m,) alone, exact."""
        if self.fetch is None and len(rows):
            return self._all(queries, min(k, len(rows)), RowMask.only(self.host.ntotal, rows))
        best = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        for first in range(0, len(rows), _MOST_FETCHED):
            some = rows[first : first + _MOST_FETCHED]
            scores = np.empty((len(queries), len(some)), dtype=np.float32)
            for start in range(0, len(some), _BLOCK):
                block = slice(start, start + _BLOCK)
                np.matmul(queries, self._vectors(some[block]).T, out=scores[:, block])
            best = merged([best, (scores, np.broadcast_to(some, scores.shape))], k)
        return best

    def _near(self, queries: NDArray[np.float32], k: int, shown: RowMask) -> Found:
        share = shown.count / shown.size
        mostly = share >= _MOSTLY
        # A mask of chance leaves k of so many, but for one time in a hundred.
        enough = (k + 2.5 * np.sqrt(k * (1.0 - share))) / share + 8
        wide = min(int(enough) if mostly else max(k, _NEAR), shown.size)
        effort = max(self._effort(wide), self._effort(k) / share if mostly else 0.0)
        scores, rows = self._ask(queries, wide, effort, RowMask.of_all(shown.size))
        live = (rows >= 0) & shown.has(np.maximum(rows, 0).ravel()).reshape(rows.shape)
        counts = live.sum(axis=1)
        scores, rows = np.where(live, scores, -np.inf).astype(np.float32), np.where(live, rows, -1)
        scores, rows = merged([(scores, rows)], k)
        rest = counts < k if mostly else np.ones(len(queries), dtype=np.bool_)
        if not rest.any():
            return scores, rows
        around = np.minimum(counts / wide, share)
        reached = rest & (around >= _SPARSER * share)
        if reached.any():
            effort = self._effort(k) / float(around[reached].min())
            if self._work(effort) < shown.count:
                scores[reached], rows[reached] = self._ask(queries[reached], k, effort, shown)
                rest &= ~reached
        # Those left have too few rows here, and are completed.
        rows[rest] = -1
        return scores, rows

    def _completed(
        self, queries: NDArray[np.float32], k: int, shown: RowMask, scores: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> Found:
        short = (rows < 0).any(axis=1)
        if short.any():
            scores[short], rows[short] = self._all(queries[short], k, shown)
        return scores, rows

    def _all(self, queries: NDArray[np.float32], k: int, shown: RowMask) -> Found:
        """From all rows shown: as exact as what the index keeps of them."""
        if self.fetch is not None and shown.count <= _MOST_FETCHED:
            return self.best_of(queries, k, shown.rows())
        scores, rows = _scan(
            self.core, _transformed(self.host, queries), min(int(k * self.candidates), shown.count), shown
        )
        if self.host is self.core or not isinstance(self.host, faiss.IndexRefine):
            return scores, rows
        best = [self.best_of(query[None], k, found) for query, found in zip(queries, rows, strict=True)]
        return np.concatenate([scores for scores, _ in best]), np.concatenate([rows for _, rows in best])

    def _vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        assert self.fetch is not None  # noqa: S101 - asked for where it is there
        return self.fetch(rows)

    def _ask(self, queries: NDArray[np.float32], k: int, effort: float, shown: RowMask) -> Found:
        return _arrays(self._searched(self.index, queries, k, effort, shown))

    def _searched(self, index: Any, queries: NDArray[np.float32], k: int, effort: float, shown: RowMask) -> Any:
        """The one place where an index that may be approximate is searched."""
        # FAISS reads the mask in place and keeps no reference to what parameters are made of: they live until here.
        selector = shown.selector()
        parameters, _kept = _parameters(self.host, effort, selector)
        if index is not self.host:
            return index.search(queries, k, params=parameters, shown=shown.bits)
        return index.search(queries, k, params=parameters)

    @property
    def _listed(self) -> bool:
        return isinstance(self.core, faiss.IndexIVF)

    def _effort(self, k: int) -> float:
        """efSearch or nprobe as tuned, or more where they could not give k rows."""
        asked = k * self.candidates
        if hasattr(self.core, "hnsw"):
            return float(max(self.core.hnsw.efSearch, asked))
        if self._listed:
            return float(max(self.core.nprobe, 2 * asked * self.core.nlist / max(1, self.core.ntotal)))
        return 1.0

    def _work(self, effort: float) -> float:
        """What a search of this effort costs, in rows fetched and compared."""
        if hasattr(self.core, "hnsw"):
            return effort * _ROWS_PER_STEP
        if self._listed:
            return float(effort * _ROWS_PER_LISTED * self.core.ntotal / self.core.nlist)
        return float(self.core.ntotal / 64)


def merged(parts: list[Found], k: int) -> Found:
    """The k best of several results (n, any), by score and then by row; fewer where all of them together are fewer.

    Rows of -1 have a score of -inf, and come last.
    """
    scores = np.concatenate([scores for scores, _ in parts], axis=1)
    rows = np.concatenate([rows for _, rows in parts], axis=1)
    if 0 < 4 * k < scores.shape[1]:
        best = np.argpartition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    best = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


def _scan(core: faiss.Index, queries: NDArray[np.float32], k: int, shown: RowMask) -> Found:
    """The best rows shown among all that the index keeps; a beam or a coarse graph may never come to some of them."""
    selector = shown.selector()
    if isinstance(core, faiss.IndexIVF):
        centres = np.asarray(core.quantizer.reconstruct_n(0, core.nlist), dtype=np.float32)
        nearness = np.ascontiguousarray(queries @ centres.T, dtype=np.float32)
        lists = np.tile(np.arange(core.nlist), (len(queries), 1))
        parameters = faiss.SearchParametersIVF(nprobe=core.nlist, sel=selector)
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        # The method without "_c" takes no parameters.
        pointers = [faiss.swig_ptr(values) for values in (queries, lists, nearness, scores, rows)]
        core.search_preassigned_c(len(queries), pointers[0], k, *pointers[1:], False, parameters)
        return scores, rows
    kept = faiss.downcast_index(core.storage) if hasattr(core, "hnsw") else core
    return _arrays(kept.search(queries, k, params=faiss.SearchParameters(sel=selector)))


def _transformed(index: faiss.Index, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """The queries as the index inside is asked them."""
    if isinstance(index, faiss.IndexRefine):
        return _transformed(faiss.downcast_index(index.base_index), queries)
    if isinstance(index, faiss.IndexPreTransform):
        for place in range(index.chain.size()):
            queries = faiss.downcast_VectorTransform(index.chain.at(place)).apply(queries)
        return _transformed(faiss.downcast_index(index.index), queries)
    return queries


def _arrays(found: Any) -> Found:
    scores, rows = found
    return np.asarray(scores, dtype=np.float32), np.asarray(rows, dtype=np.int64)


def _parameters(index: faiss.Index, effort: float, selector: faiss.IDSelector | None) -> tuple[Any, list[Any]]:
    """FAISS search parameters for an index of any make, and all objects that have to live as long as they."""
    if isinstance(index, faiss.IndexRefine):
        inner, kept = _parameters(faiss.downcast_index(index.base_index), effort, selector)
        made = faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    elif isinstance(index, faiss.IndexPreTransform):
        inner, kept = _parameters(faiss.downcast_index(index.index), effort, selector)
        made = faiss.SearchParametersPreTransform(index_params=inner)
    elif hasattr(index, "hnsw"):
        kept = [selector]
        made = faiss.SearchParametersHNSW(efSearch=int(min(np.ceil(effort), index.ntotal)), sel=selector)
    elif isinstance(index, faiss.IndexIVF):
        kept = [selector]
        made = faiss.SearchParametersIVF(nprobe=int(min(np.ceil(effort), index.nlist)), sel=selector)
    else:
        kept = [selector]
        made = faiss.SearchParameters(sel=selector)
    return made, [*kept, made]


def _fetcher(
    index: faiss.Index, vectors: NDArray[np.float32] | None, as_is: NDArray[np.int64] | None
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]] | None:
    if isinstance(index, faiss.IndexRefine):
        stored = faiss.downcast_index(index.refine_index)
    else:
        stored = faiss.downcast_index(index.storage) if hasattr(index, "hnsw") else index
    if isinstance(stored, faiss.IndexFlat):
        # The pointer moves when the index grows, which built indexes do not.
        values = faiss.rev_swig_ptr(stored.get_xb(), stored.ntotal * stored.d) if stored.ntotal else np.zeros(0)
        table = values.reshape(stored.ntotal, stored.d)
        return lambda rows: np.take(table, rows, axis=0)
    if vectors is not None:
        return lambda rows: _indexed(vectors, rows, as_is)
    if isinstance(stored, faiss.IndexFlatCodes):
        return lambda rows: np.asarray(stored.reconstruct_batch(rows), dtype=np.float32)
    return None


def _indexed(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], as_is: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    found = np.array(vectors[rows], dtype=np.float32)
    if as_is is None or not len(as_is):
        return np.asarray(unit(found), dtype=np.float32)
    scaled = ~np.isin(rows, as_is)
    found[scaled] = unit(found[scaled])
    return found
