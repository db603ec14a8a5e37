"""Example memory: training queries as extra keys, whose neighbours vote for the labels they carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.layered import Neighbours
from index.packed import Lists, spans

# What bundles of the first version were made with.
NEIGHBOURS = 32
TEMPERATURE = 0.05


@dataclass(frozen=True, slots=True)
class ExampleLabels:
    """Which labels the examples carry: `base` for the bundle's, then one label row for each example `added` since."""

    base: Lists
    added: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    def of(self, examples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many labels each example row carries, and all of their rows one after another."""
        old = examples < len(self.base)
        inside = np.where(old, examples, 0)
        lengths = np.ones(len(examples), dtype=np.int64)
        if old.any():
            lengths = np.where(old, self.base.offsets[inside + 1] - self.base.offsets[inside], 1)
        carried = np.empty(int(lengths.sum()), dtype=np.int64)
        from_base = np.repeat(old, lengths)
        carried[from_base] = self.base.values[spans(self.base.offsets[inside[old]], lengths[old])]
        carried[~from_base] = self.added[examples[~old] - len(self.base)]
        return lengths, carried


@dataclass(frozen=True, slots=True)
class Votes:
    """Votes of n queries as triples in order of query and label, each pair once; all (m,).

    query: int64 in [0, n); label: row, int64; weight: float32 in (0, 1].
    """

    query: NDArray[np.int64]
    label: NDArray[np.int64]
    weight: NDArray[np.float32]


def vote(neighbours: Neighbours, labels: ExampleLabels, *, temperature: float = TEMPERATURE) -> Votes:
    """What each query's nearest examples vote for.

    Each neighbour votes for every label it carries with the softmax of its cosine / temperature over the query's
    neighbours (the memory head of RAE-XMC, arXiv 2502.10615; not divided by the number of labels it carries).
    """
    found = neighbours.rows >= 0
    scores = np.where(found, neighbours.scores.astype(np.float64), -np.inf) / temperature
    highest = np.max(scores, axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    lengths, carried = labels.of(neighbours.rows[found])
    query, carried, weight = sum_pairs(
        np.repeat(np.nonzero(found)[0], lengths), carried, np.repeat(weights[found], lengths)
    )
    return Votes(query, carried, weight.astype(np.float32))


def sum_pairs(
    query: NDArray[np.int64], label: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The triples in order of (query, label), the weights of equal pairs added up."""
    if not len(query):
        return query, label, weight
    order = np.lexsort((label, query))
    query, label, weight = query[order], label[order], weight[order]
    first = np.flatnonzero((np.diff(query, prepend=-1) != 0) | (np.diff(label, prepend=-1) != 0))
    return query[first], label[first], np.add.reduceat(weight, first)
