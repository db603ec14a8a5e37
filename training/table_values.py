"""What a corpus asks of a table: how many values share its rows, and how many look-ups find a row without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.feature_spec import FeatureSpec
from index.lexicon import Lexicon
from index.placement import Placement
from training.feature_fitting import Records, counted_values


@dataclass(frozen=True, slots=True)
class Sharing:
    """The distinct values of one namespace in a table, or of all.

    name: of the namespace, "all" for all. rows: that they are hashed to. values: how many there are. load: values to a
    row. look_ups: pairs of a value and a row of its; as many as values where each has one probe.
    same: share of the look-ups whose row another value of the same namespace has, too. others: share whose row a value
    of another namespace has. expected_same, expected_others: the shares that chance would give, 1 - (1 - 1/M)^(N - 1)
    of N look-ups in M rows. alike: share of the values that have the very rows of another one of their namespace, and
    so are one with it to the model.
    """

    name: str
    rows: int
    values: int
    load: float
    look_ups: int
    same: float
    expected_same: float
    others: float
    expected_others: float
    alike: float


@dataclass(frozen=True, slots=True)
class Unmet:
    """The look-ups of some texts, repeats included. untouched: share of them whose row training has never moved, or
    that have no row; None without look-ups."""

    look_ups: int
    untouched: float | None


class TableValues:
    """Where a fitted spec puts values. Everything is by namespace, in the order of `spec.namespaces`."""

    def __init__(self, spec: FeatureSpec, lexicon: Lexicon | None) -> None:
        # One bag for each value, whatever the towers make of them: a cell is then a value and a row.
        self._spec = replace(spec, separate=False)
        self._placement = Placement(self._spec, None if lexicon is None else lexicon.vocabulary, None)
        self._placement.check()
        self._spaces = self._spec.layout()
        self._lexicon = lexicon

    def distinct(self, parts: Sequence[tuple[str, Records]]) -> list[NDArray[np.uint64]]:
        """The hashes of the distinct values of records, each with its tower, "query" or "label"; ascending."""
        return [values for values, _ in counted_values(self._spec, parts, self._lexicon)]

    def sharing(self, distinct: Sequence[NDArray[np.uint64]]) -> list[Sharing]:
        """How these values share the rows: of each namespace that has some, and last of all of them together."""
        pairs = [self._rows(place, values) for place, values in enumerate(distinct)]
        total = np.zeros(self._spec.rows, dtype=np.int64)
        for _, rows in pairs:
            total += np.bincount(rows, minlength=self._spec.rows)
        found = [self._share(place, len(distinct[place]), *pairs[place], total) for place in range(len(distinct))]
        found = [share for share in found if share.values]
        return [*found, _together(found, self._spec.rows)]

    def _share(
        self, place: int, values: int, who: NDArray[np.int64], rows: NDArray[np.int64], total: NDArray[np.int64]
    ) -> Sharing:
        own = np.bincount(rows, minlength=self._spec.rows)
        start, stop = self._part(place)
        space = self._spaces[place]
        inside, count = int(total[start:stop].sum()), len(rows)
        chance = self._spec.table != "exact"
        return Sharing(
            space.name,
            stop - start,
            values,
            values / (stop - start),
            count,
            _mean(own[rows] > 1),
            _hit(stop - start, count - space.probes) if chance else 0.0,
            _mean(total[rows] > own[rows]),
            _hit(stop - start, inside - count) if chance else 0.0,
            _alike(who, rows, values),
        )

    def unmet(self, parts: Sequence[tuple[str, Records]], touched: Sequence[NDArray[np.bool_]]) -> list[Unmet]:
        """Look-ups of records against the rows (rows,) that each of several trainings has touched; the share is the
        mean over these. Of each namespace, and last of all of them together."""
        found, hits = [], []
        for place, (values, counts) in enumerate(counted_values(self._spec, parts, self._lexicon)):
            who, rows = self._rows(place, values)
            probes = np.bincount(who, minlength=len(values))
            look_ups = int((np.maximum(1, probes) * counts).sum())
            met = [int(counts[who[one[rows]]].sum()) for one in touched]
            found.append(Unmet(look_ups, _share_left(look_ups, met)))
            hits.append(met)
        everything = sum(one.look_ups for one in found)
        met = [sum(some) for some in zip(*hits, strict=True)]
        return [*found, Unmet(everything, _share_left(everything, met))]

    def _rows(self, place: int, values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a value's number and a row that it looks up, each pair once; both (m,)."""
        which = np.arange(len(values))
        if not self._spaces[place].slotted:
            sequences, _ = self._placement.sequences(len(values), place, which, values)
            return np.repeat(which, sequences.lengths), sequences.rows.astype(np.int64)
        cells = np.unique(self._placement(which, np.full(len(values), place), values).cells)
        who, rows = np.divmod(cells, self._spec.rows)
        return who, rows

    def _part(self, place: int) -> tuple[int, int]:
        """The rows [start, stop) of a namespace."""
        if self._spec.table.endswith("split"):
            return self._spec.parts[place], self._spec.parts[place + 1]
        return 0, self._spec.rows


def _hit(rows: int, others: int) -> float:
    """The chance that at least one of `others` look-ups falls into a given one of `rows` rows."""
    return float(-np.expm1(max(0, others) * np.log1p(-1 / rows))) if rows > 1 else float(others > 0)


def _alike(who: NDArray[np.int64], rows: NDArray[np.int64], values: int) -> float:
    """Share of the values whose set of rows is also another's; pairs are in order of value and row."""
    if not len(who):
        return 0.0
    lengths = np.bincount(who, minlength=values)
    place = np.arange(len(who)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    same = lengths  # the number of the set that a value has, as far as it was looked at
    for probe in range(int(lengths.max())):
        row = np.full(values, -1, dtype=np.int64)
        row[who[place == probe]] = rows[place == probe]
        _, same = np.unique(same * (int(rows.max()) + 2) + row + 1, return_inverse=True)
    return float(((np.bincount(same)[same] > 1) & (lengths > 0)).mean())


def _together(parts: Sequence[Sharing], rows: int) -> Sharing:
    """Means over the look-ups, or the values, of all namespaces."""
    look_ups, values = np.array([part.look_ups for part in parts]), np.array([part.values for part in parts])

    def mean(name: str, weights: NDArray[np.int64]) -> float:
        shares = np.array([getattr(part, name) for part in parts])
        return float((shares * weights).sum() / max(1, weights.sum()))

    count = int(values.sum())
    same, expected_same = mean("same", look_ups), mean("expected_same", look_ups)
    others, expected_others, alike = mean("others", look_ups), mean("expected_others", look_ups), mean("alike", values)
    return Sharing(
        "all",
        rows,
        count,
        count / rows,
        int(look_ups.sum()),
        same,
        expected_same,
        others,
        expected_others,
        alike,
    )


def _share_left(look_ups: int, met: Sequence[int]) -> float | None:
    return 1.0 - float(np.mean(met)) / look_ups if look_ups else None


def _mean(some: NDArray[np.bool_]) -> float:
    return float(some.mean()) if len(some) else 0.0
