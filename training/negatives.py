"""The pool: which labels a batch's queries are compared with, and what stands for the labels that are not in it."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from training.config import NegativesConfig

# Above so many labels, exact search for each batch would cost more than the step.
_EXACT_BELOW = 50_000


@dataclass(frozen=True, slots=True)
class Pool:
    """labels: (p,) label rows, ascending. positive: (b, p) bool, which of them a query carries.

    ignored: (b, p) bool, which are neither positive nor negative for a query, None for none. log_weight: (p,) float32,
    added to the score of a negative, None for 0. Every positive of every query is in the pool and marked as one, so no
    query's own label is ever its negative.
    """

    labels: NDArray[np.int64]
    positive: NDArray[np.bool_]
    ignored: NDArray[np.bool_] | None
    log_weight: NDArray[np.float32] | None


class Negatives:
    """Makes the pool of each batch. relevance: (queries, labels); excluded: the same shape, pairs to ignore.

    cache: (labels, dim) label vectors of the last refresh (mined, cached), with rows written back as they are encoded
    again (cached); the trainer refreshes it when `due`, and `needs_vectors` says that a pool depends on the queries'
    own vectors.
    """

    def __init__(
        self,
        relevance: csr_matrix,
        excluded: csr_matrix | None,
        config: NegativesConfig,
        temperature: float,
        device: torch.device | None = None,
    ) -> None:
        self.relevance, self.config, self.temperature = relevance, config, temperature
        self.device = device or torch.device("cpu")
        self.excluded = excluded if excluded is not None and excluded.nnz else None
        counts = np.bincount(relevance.indices, minlength=relevance.shape[1])
        # A label that occurs nowhere in train, as a negative like any other, would be pushed away from every query and
        # never be predicted; never drawn, it would crowd out the labels that are known to fit.
        self._chances = np.where(counts > 0, 1.0, config.unseen_share)
        self.needs_vectors = config.kind in ("mined", "cached")
        self.cache: Tensor | None = None
        self._index: faiss.Index | None = None

    def describe(self) -> str:
        """The pool in words, for the report of a run."""
        config, drawn = self.config, min(self.config.sampled, self.relevance.shape[1])
        weighted = " standing for all others" if config.log_weight else ""
        return {
            "in_batch": "the positives of the batch",
            "uniform": f"the positives of the batch and {drawn} labels drawn at random{weighted}",
            "clustered": f"the positives of a batch of clusters of {config.cluster_start} to {config.cluster_end} "
            f"queries and {drawn} labels drawn at random{weighted}",
            "mined": f"the positives of the batch, {config.mined} nearest wrong labels of each query and {drawn} "
            f"labels drawn at random{weighted}",
            "all": "all labels",
            "cached": f"all labels, by vectors at most {config.refresh} steps old but for the positives and the "
            f"{config.hardest} hardest of the batch",
        }[config.kind]

    def due(self, step: int) -> bool:
        """Whether the label vectors have to be encoded anew before this step of the run."""
        return self.needs_vectors and (self.cache is None or step % self.config.refresh == 0)

    def refresh(self, labels: Tensor) -> None:
        """Take these vectors (labels, dim) of all labels as the current ones."""
        self.cache = labels.detach().clone()
        self._index = None

    def pool(self, queries: NDArray[np.int64], vectors: Tensor | None, random: np.random.Generator) -> Pool:
        """The pool of these queries (b,), whose vectors (b, dim) are needed where `needs_vectors` says so."""
        relevant = self.relevance[queries]
        positives = np.unique(relevant.indices).astype(np.int64)
        kind = self.config.kind
        if kind == "all":
            others, drawn = np.arange(self.relevance.shape[1]), np.zeros(0, dtype=np.int64)
        elif kind == "cached":
            assert vectors is not None  # noqa: S101 - needs_vectors
            others, drawn = self._hardest(vectors.detach(), relevant), np.zeros(0, dtype=np.int64)
            if self.excluded is not None:  # only in the pool can a label be left out for one query
                others = np.union1d(others, self.excluded[queries].indices)
        elif kind == "in_batch":
            others, drawn = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        else:
            others = np.zeros(0, dtype=np.int64)
            if kind == "mined":
                assert vectors is not None  # noqa: S101 - needs_vectors
                others = self._nearest_wrong(vectors.detach(), relevant)
            drawn = self._draw(np.union1d(positives, others), random)
        labels = np.union1d(np.union1d(positives, others), drawn).astype(np.int64)
        positive = _marked(relevant, labels)
        ignored = None if self.excluded is None else _marked(self.excluded[queries], labels) & ~positive
        return Pool(labels, positive, ignored, self._log_weight(labels, drawn))

    def write_back(self, labels: NDArray[np.int64], vectors: Tensor) -> None:
        """Keep what a step has just encoded: `vectors` (p, dim) of `labels` (p,)."""
        if self.config.kind == "cached" and self.cache is not None:
            self.cache[torch.from_numpy(labels)] = vectors.detach()

    def rest(self, pool: Pool) -> tuple[Tensor, Tensor] | None:
        """What stands for the labels outside the pool, only for "cached": vectors (labels, dim), and (labels,) what is
        added to their scores: −inf for those in the pool."""
        if self.config.kind != "cached" or self.cache is None:
            return None
        if np.count_nonzero(self._chances) <= np.count_nonzero(self._chances[pool.labels]):
            return None  # nothing is left
        shift = torch.from_numpy(
            np.log(self._chances, where=self._chances > 0, out=np.full(len(self._chances), -np.inf))
        )
        shift = shift.to(self.cache)
        shift[torch.from_numpy(pool.labels)] = -torch.inf
        return self.cache, shift

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.cache is None else {"negatives.cache": self.cache.cpu()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        if "negatives.cache" in tensors:
            self.refresh(tensors["negatives.cache"].to(self.device))

    def _draw(self, known: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """`sampled` labels outside of those `known` to be in the pool, each at most once."""
        chances = self._chances.copy()
        chances[known] = 0.0
        return draw(chances, self.config.sampled, random)

    def _log_weight(self, labels: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Where every label takes part, an unseen one counts by its share. Else drawn labels stand for all of their
        chance that might have been drawn, ln(chance · those / drawn), and the others for themselves.

        So the expected Σ exp(score) over a query's negatives is that over all labels, unseen ones counted by their
        share (sampled softmax, Bengio & Senécal 2003). Chance by chance, because labels of one chance are drawn alike:
        exact without replacement, but for a chance of which none is drawn.
        """
        if self.config.kind in ("all", "cached"):
            chances = self._chances[labels]
            with np.errstate(divide="ignore"):
                return None if (chances == 1).all() else np.log(chances).astype(np.float32)
        if not self.config.log_weight or not len(drawn):
            return None
        weight = np.zeros(len(labels), dtype=np.float32)
        known = self._chances[np.setdiff1d(labels, drawn)]
        for chance in np.unique(self._chances[drawn]):
            alike = drawn[self._chances[drawn] == chance]
            possible = np.count_nonzero(self._chances == chance) - np.count_nonzero(known == chance)
            weight[np.searchsorted(labels, alike)] = np.log(chance * possible / len(alike))
        return weight

    def _nearest_wrong(self, vectors: Tensor, relevant: csr_matrix) -> NDArray[np.int64]:
        """The `mined` nearest labels of each query that it does not carry, by the current index."""
        assert self.cache is not None  # noqa: S101 - the trainer refreshes before
        if self._index is None:
            self._index = _index(self.cache.float().cpu().numpy())
        most = int(np.diff(relevant.indptr).max(initial=0))
        wanted = min(self.config.mined + most, self._index.ntotal)
        _, found = self._index.search(vectors.float().cpu().numpy(), wanted)
        own = _keys(relevant)
        keys = np.arange(len(found))[:, None] * self.relevance.shape[1] + found
        wrong = (found >= 0) & ~np.isin(keys, own) & (self._chances[found] > 0)
        wrong &= np.cumsum(wrong, axis=1) <= self.config.mined
        return np.unique(found[wrong]).astype(np.int64)

    def _hardest(self, vectors: Tensor, relevant: csr_matrix) -> NDArray[np.int64]:
        """The `hardest` labels by the share of probability that the batch's queries wrongly give them."""
        assert self.cache is not None  # noqa: S101 - the trainer refreshes before
        count = min(self.config.hardest, len(self.cache))
        if not count:
            return np.zeros(0, dtype=np.int64)
        wrong = torch.softmax(vectors.to(self.cache) @ self.cache.T / self.temperature, dim=1)  # (b, labels)
        rows = np.repeat(np.arange(len(vectors)), np.diff(relevant.indptr))
        wrong[torch.from_numpy(rows), torch.from_numpy(relevant.indices.astype(np.int64))] = 0.0
        weight = wrong.sum(dim=0) * torch.from_numpy(self._chances).to(wrong)
        best = weight.topk(count)
        return best.indices[best.values > 0].cpu().numpy()


def draw(chances: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`count` different places (all that have a chance, where there are no more), likelier where `chances` is higher.

    The smallest of exponential waiting times with these rates (Efraimidis & Spirakis 2006): one pass, exact.
    """
    possible = np.flatnonzero(chances)
    if count >= len(possible):
        return possible
    waits = random.standard_exponential(len(possible), dtype=np.float32) / chances[possible]
    return possible[np.argpartition(waits, count)[:count]]


def _index(vectors: NDArray[np.float32]) -> faiss.Index:
    count, dim = vectors.shape
    if count < _EXACT_BELOW:
        index = faiss.IndexFlatIP(dim)
    else:
        cells = int(4 * count**0.5)
        index = faiss.index_factory(dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(8, cells // 64)
        index.train(vectors)
    index.add(vectors)
    return index


def _marked(pairs: csr_matrix, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(rows, p) bool: which of the ascending `labels` (p,) each row of the CSR `pairs` names."""
    marked = np.zeros((pairs.shape[0], len(labels)), dtype=bool)
    places = np.searchsorted(labels, pairs.indices)
    places[places == len(labels)] = 0
    row = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    inside = labels[places] == pairs.indices if len(labels) else np.zeros(len(places), dtype=bool)
    marked[row[inside], places[inside]] = True
    return marked


def _keys(pairs: csr_matrix) -> NDArray[np.int64]:
    row = np.repeat(np.arange(pairs.shape[0], dtype=np.int64), np.diff(pairs.indptr))
    return np.asarray(row * pairs.shape[1] + pairs.indices, dtype=np.int64)
