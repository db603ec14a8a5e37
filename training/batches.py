"""Seeded batches: which queries, which labels they are compared with, and which of these are positives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Batch:
    """queries: (b,) rows of train; pool: (p,) label rows, ascending; positive: (b, p) bool.

    random: for everything else that the step draws. epoch and step (within the epoch) count from 0.
    """

    epoch: int
    step: int
    queries: NDArray[np.int64]
    pool: NDArray[np.int64]
    positive: NDArray[np.bool_]
    random: np.random.Generator


@dataclass(frozen=True, slots=True)
class Batches:
    """All batches of a run. Each depends on the seed, its epoch and its step alone, so a run resumes at any of them.

    relevance: (queries, labels); queries without labels take no part. The pool of a batch is the union of its
    positives and `sampled` labels drawn without replacement. A label that occurs nowhere in train is drawn with
    `unseen_share` of the chance of another: as a negative like any other, it would be pushed away from every query
    and never be predicted; never drawn, it would crowd out the labels that are known to fit.
    """

    relevance: csr_matrix
    size: int
    sampled: int
    unseen_share: float
    seed: int

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.diff(self.relevance.indptr))

    @property
    def per_epoch(self) -> int:
        return max(1, -(-len(self.rows) // self.size))

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `first` on; every query with labels comes once."""
        rows = self.rows
        order = np.random.default_rng([self.seed, epoch]).permutation(rows)
        counts = np.bincount(self.relevance.indices, minlength=self.relevance.shape[1])
        chances = np.where(counts > 0, 1.0, self.unseen_share)
        for step in range(first, self.per_epoch):
            random = np.random.default_rng([self.seed, epoch, step])
            queries = np.sort(order[step * self.size : (step + 1) * self.size])
            relevant = self.relevance[queries]
            pool = np.union1d(relevant.indices, _draw(chances, self.sampled, random))
            positive = np.zeros((len(queries), len(pool)), dtype=bool)
            of_query = np.repeat(np.arange(len(queries)), np.diff(relevant.indptr))
            positive[of_query, np.searchsorted(pool, relevant.indices)] = True
            yield Batch(epoch, step, queries, pool.astype(np.int64), positive, random)


def _draw(chances: NDArray[np.float64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`count` different places (all that have a chance, where there are no more), likelier where `chances` is higher.

    The smallest of exponential waiting times with these rates (Efraimidis & Spirakis 2006): one pass, exact.
    """
    possible = np.flatnonzero(chances)
    if count >= len(possible):
        return possible
    waits = random.standard_exponential(len(possible), dtype=np.float32) / chances[possible]
    return possible[np.argpartition(waits, count)[:count]]
