"""Seeded batches of queries: in random order, or with neighbours together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Batch:
    """queries: (b,) rows of train, ascending. random: for everything else that the step draws.

    epoch and step (within the epoch) count from 0.
    """

    epoch: int
    step: int
    queries: NDArray[np.int64]
    random: np.random.Generator


@dataclass(frozen=True, slots=True)
class Batches:
    """All batches of a run. Each depends on the seed, its epoch, its step and the epoch's order alone, so that a run
    resumes at any of them.

    relevance: (queries, labels); queries without labels take no part.
    """

    relevance: csr_matrix
    size: int
    seed: int

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.diff(self.relevance.indptr))

    @property
    def per_epoch(self) -> int:
        return max(1, -(-len(self.rows) // self.size))

    def order(self, epoch: int, clusters: list[NDArray[np.int64]] | None = None) -> NDArray[np.int64]:
        """Every query with labels once: in random order, or cluster by cluster in random order of the clusters."""
        random = np.random.default_rng([self.seed, epoch])
        if clusters is None:
            return random.permutation(self.rows)
        return np.concatenate([clusters[place] for place in random.permutation(len(clusters))])

    def epoch(self, epoch: int, order: NDArray[np.int64], *, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `first` on."""
        for step in range(first, self.per_epoch):
            queries = np.sort(order[step * self.size : (step + 1) * self.size])
            yield Batch(epoch, step, queries, np.random.default_rng([self.seed, epoch, step]))
