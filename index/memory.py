"""Example memory: training queries as extra keys, whose neighbours vote for the labels they carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

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
    dropped: label rows that an example of `base` carries no more. twins: of each added example that has the vector of
    examples of `base`, by its number, the places of these, ascending.
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


def vote(
    neighbours: Neighbours, labels: ExampleLabels, *, temperature: float = TEMPERATURE, most: int | None = None
) -> Votes:
    """What each query's nearest examples vote for.

    Each neighbour votes for every label it carries with the softmax of its cosine / temperature over the query's
    neighbours (the memory head of RAE-XMC, arXiv 2502.10615; not divided by the number of labels it carries), and
    against every label that it was said to be wrong for with as much. A twin beside an example whose vector it has is
    no neighbour of its own: its labels count as if that example carried them too. most: only so many neighbours vote.
    """
    rows = neighbours.rows.ravel()
    width = neighbours.rows.shape[1]
    twins, bases = _twins(rows, width, labels)
    voting = rows >= 0
    voting[twins] = False
    by_query = voting.reshape(neighbours.rows.shape)
    if most is not None and most < width:
        by_query &= np.cumsum(by_query, axis=1) <= most
    scores = np.where(by_query, neighbours.scores.astype(np.float64), -np.inf) / temperature
    highest = np.max(scores, axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    # Whose weight each neighbour has: its own, or that of its base.
    whose = np.arange(len(rows))
    whose[twins] = bases
    voting[twins] = voting[bases]
    lengths, carried, right = labels.of(rows[voting])
    voter = np.repeat(whose[voting], lengths)
    if len(twins):
        once = _first_of_equals(voter, carried, right)
        voter, carried, right = voter[once], carried[once], right[once]
    weight = weights.ravel()[voter]
    query = voter // max(1, width)
    query, carried, weight = sum_pairs(query, carried, np.where(right, weight, -weight))
    return Votes(query, carried, weight.astype(np.float32))


def _twins(rows: NDArray[np.int64], width: int, labels: ExampleLabels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which places (m,) among the neighbours (n * width,) have twins of others of the same query, and where the first
    of these is, (m,)."""
    none, count = np.zeros(0, dtype=np.int64), len(labels.base)
    if not labels.twins:
        return none, none
    added = np.flatnonzero(rows >= count)
    same = [labels.twins.get(number, ()) for number in (rows[added] - count).tolist()]
    lengths = np.array([len(one) for one in same], dtype=np.int64)
    base = np.flatnonzero((rows >= 0) & (rows < count))
    if not lengths.any() or not len(base):
        return none, none
    # A query and an example of the base in one number.
    known = base // width * count + rows[base]
    order = np.argsort(known)
    twin = np.repeat(added, lengths)
    sought = twin // width * count + np.fromiter(chain.from_iterable(same), dtype=np.int64, count=len(twin))
    at = order[np.minimum(np.searchsorted(known, sought, sorter=order), len(order) - 1)]
    met = known[at] == sought
    twins, first = np.unique(twin[met], return_index=True)
    return twins, base[at[met][first]]


def _first_of_equals(voter: NDArray[np.int64], label: NDArray[np.int64], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of different triples, ascending."""
    order = np.lexsort((right, label, voter))
    triples = np.stack([voter[order], label[order], right[order]])
    new = np.any(np.diff(triples, axis=1, prepend=-1) != 0, axis=0)
    return np.sort(order[new])


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
