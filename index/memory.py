"""Example memory: training queries as extra keys, whose neighbours vote for the labels they carry."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from index.layered import Neighbours
from index.packed import Lists, spans

# What bundles of the first version were made with.
NEIGHBOURS = 32
TEMPERATURE = 0.05


@dataclass(frozen=True, slots=True)
class ExampleLabels:
    """Which labels the examples carry: those of `base`, and after them those that were added since.

    added: of each added example, by its number among them, the label rows with whether they are right for it or wrong.
    dropped: label rows that an example of `base` carries no more. twins: of added examples, by their numbers, those of
    `base` that are the same text.
    """

    base: Lists
    added: Map[int, tuple[tuple[int, bool], ...]] = field(default_factory=Map)
    dropped: Map[int, tuple[int, ...]] = field(default_factory=Map)
    twins: Map[int, tuple[int, ...]] = field(default_factory=Map)

    def of(self, examples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """How many labels each of these examples (n,) carries, all of their rows one after another, and of each of
        those whether it is right for its example (else wrong)."""
        old = examples < len(self.base)
        inside = np.where(old, examples, 0)
        if not len(self.base):
            lengths = np.zeros(len(examples), dtype=np.int64)
        else:
            lengths = np.where(old, self.base.offsets[inside + 1] - self.base.offsets[inside], 0)
        starts = self.base.offsets[inside[old]]
        carried = self.base.values[spans(starts, lengths[old])].astype(np.int64)
        right = np.ones(len(carried), dtype=np.bool_)
        if self.dropped:
            lengths, carried = self._without_dropped(examples, lengths, carried)
            right = right[: len(carried)]
        return (lengths, carried, right) if old.all() else self._with_added(examples, lengths, carried)

    def second(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of each query's neighbours (n, k), -1 for none, are added examples that it has among those of `base`,
        too."""
        found = np.zeros(rows.shape, dtype=np.bool_)
        if self.twins:
            for query, place in np.argwhere(rows >= len(self.base)).tolist():
                twins = self.twins.get(int(rows[query, place]) - len(self.base), ())
                found[query, place] = bool(np.isin(twins, rows[query]).any())
        return found

    def _without_dropped(
        self, examples: NDArray[np.int64], lengths: NDArray[np.int64], carried: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        kept = np.ones(len(carried), dtype=np.bool_)
        starts = np.cumsum(lengths) - lengths
        for place, example in enumerate(examples.tolist()):
            if (gone := self.dropped.get(example)) is not None:
                own = slice(int(starts[place]), int(starts[place] + lengths[place]))
                kept[own] = ~np.isin(carried[own], gone)
        counted = np.concatenate([[0], np.cumsum(kept)])
        return counted[starts + lengths] - counted[starts], carried[kept]

    def _with_added(
        self, examples: NDArray[np.int64], lengths: NDArray[np.int64], carried: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """The same with what the added examples carry, each at its place."""
        since = [
            (place, self.added.get(example - len(self.base), ()))
            for place, example in enumerate(examples.tolist())
            if example >= len(self.base)
        ]
        lengths = lengths.copy()
        lengths[[place for place, _ in since]] = [len(pairs) for _, pairs in since]
        of_added = np.repeat(examples >= len(self.base), lengths)
        rows, right = np.empty(len(of_added), dtype=np.int64), np.ones(len(of_added), dtype=np.bool_)
        rows[~of_added] = carried
        rows[of_added] = [row for _, pairs in since for row, _ in pairs]
        right[of_added] = [is_right for _, pairs in since for _, is_right in pairs]
        return lengths, rows, right


@dataclass(frozen=True, slots=True)
class Votes:
    """Votes of n queries as triples in order of query and label, each pair once; all (m,).

    query: int64 in [0, n); label: row, int64; weight: float32 in [-1, 1], below 0 where those that the label is
    wrong for are nearer.
    """

    query: NDArray[np.int64]
    label: NDArray[np.int64]
    weight: NDArray[np.float32]


def vote(neighbours: Neighbours, labels: ExampleLabels, *, temperature: float = TEMPERATURE) -> Votes:
    """What each query's nearest examples vote for.

    Each neighbour votes for every label it carries with the softmax of its cosine / temperature over the query's
    neighbours (the memory head of RAE-XMC, arXiv 2502.10615; not divided by the number of labels it carries), and
    against every label that it was said to be wrong for with as much. An example that was added and is one of the
    training's, too, takes no votes from what that one carries: it is as if its labels had been added there.
    """
    found = neighbours.rows >= 0
    scores = np.where(found, neighbours.scores.astype(np.float64), -np.inf) / temperature
    highest = np.max(scores, axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    counted = np.where(labels.second(neighbours.rows), 0.0, weights)
    weights /= np.maximum(counted.sum(axis=1, keepdims=True), 1e-30)
    lengths, carried, right = labels.of(neighbours.rows[found])
    weight = np.repeat(weights[found], lengths)
    query, carried, weight = sum_pairs(
        np.repeat(np.nonzero(found)[0], lengths), carried, np.where(right, weight, -weight)
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
