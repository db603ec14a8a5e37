"""Ranking metrics of extreme classification: P, R, nDCG, PSP, PSnDCG and coverage at k, overall and for some labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

# Constants of the propensity model where the corpus has none of its own (XC repository's default).
PROPENSITY_A = 0.55
PROPENSITY_B = 1.5


def inverse_propensity(
    counts: NDArray[np.int64], queries: int, *, a: float = PROPENSITY_A, b: float = PROPENSITY_B
) -> NDArray[np.float64]:
    """1 + C (n + B)^−A for each label, C = (ln N − 1)(B + 1)^A (Jain et al., KDD 2016).

    counts: (labels,) training queries n of each label; queries: training queries N.
    """
    c = (np.log(max(queries, 1)) - 1.0) * (b + 1.0) ** a
    return np.asarray(1.0 + c * (counts + b) ** -a, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class RowParts:
    """A figure kept by row: sum of `won` over sum of `of`, both (n,) float64; a row with 0 in both does not count.

    Kept apart because PSP is a ratio of means, not a mean of ratios, and so that rows can be drawn anew.
    """

    won: NDArray[np.float64]
    of: NDArray[np.float64]

    @property
    def figure(self) -> float:
        """The figure, a fraction; 0 where no row counts."""
        whole = self.of.sum()
        return float(self.won.sum() / whole) if whole else 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """Rankings against the truth, for n test rows; a row without labels counts in none of the figures.

    hits: (n, k) bool, whether the label at each place is relevant. rows: (n, k) int64, the labels; −1 for none.
    truth: (n, labels) CSR.
    """

    hits: NDArray[np.bool_]
    rows: NDArray[np.int64]
    truth: csr_matrix

    @classmethod
    def of(cls, rows: NDArray[np.int64], truth: csr_matrix) -> Judged:
        """rows: (n, k), ranked label rows of every test row, −1 where there is none; a row is named at most once."""
        flat = _entry_rows(truth) * truth.shape[1] + truth.indices
        keys = np.arange(len(rows))[:, None] * truth.shape[1] + rows
        return cls(np.isin(keys, flat) & (rows >= 0), rows, truth)

    @property
    def positives(self) -> NDArray[np.int64]:
        return np.asarray(np.diff(self.truth.indptr), dtype=np.int64)

    def precision(self, k: int) -> float:
        """P@k: hits among the first k, over k."""
        return self.precision_parts(k).figure

    def recall(self, k: int) -> float:
        """R@k: hits among the first k, over the row's positives."""
        return self.recall_parts(k).figure

    def ndcg(self, k: int) -> float:
        """nDCG@k with log2 discount, over the best that min(k, positives) hits could reach."""
        return self.ndcg_parts(k).figure

    def propensity_precision(self, k: int, weights: NDArray[np.float64]) -> float:
        """PSP@k: inverse propensity `weights` (labels,) of the hits, over that of the best possible first k."""
        return self.propensity_precision_parts(k, weights).figure

    def propensity_ndcg(self, k: int, weights: NDArray[np.float64]) -> float:
        """PSnDCG@k: as nDCG@k with hits worth their `weights`, over the same of the best possible ranking."""
        return self.propensity_ndcg_parts(k, weights).figure

    def coverage(self, k: int) -> float:
        """Coverage@k: labels that are a hit among some row's first k, over the labels that any row has."""
        positive = np.unique(self.truth.indices)
        return len(np.unique(self.rows[:, :k][self.hits[:, :k]])) / len(positive) if len(positive) else 0.0

    def predicted(self, k: int) -> int:
        """How many different labels are among the first k of all rows, right or wrong."""
        first = self.rows[:, :k]
        return len(np.unique(first[first >= 0]))

    def restricted_recall(self, k: int, wanted: NDArray[np.bool_]) -> tuple[float, int]:
        """R@k of the positives among the `wanted` labels (labels,) only, and the rows that have any of them."""
        parts = self.recall_parts(k, wanted)
        return parts.figure, int(parts.of.sum())

    def precision_parts(self, k: int, wanted: NDArray[np.bool_] | None = None) -> RowParts:
        """P@k by row. wanted: (labels,), count the hits on these only: what they contribute to P@k."""
        return self._counted(self._first(k, wanted).sum(axis=1) / k)

    def recall_parts(self, k: int, wanted: NDArray[np.bool_] | None = None) -> RowParts:
        """R@k by row. wanted: (labels,), as if these were all labels; rows without one of them do not count."""
        positives = self.positives
        if wanted is not None:
            positives = np.bincount(_entry_rows(self.truth)[wanted[self.truth.indices]], minlength=len(positives))
        won = self._first(k, wanted).sum(axis=1) / np.maximum(positives, 1)
        return RowParts(won, (positives > 0).astype(np.float64))

    def ndcg_parts(self, k: int) -> RowParts:
        return self._counted(self._first(k, None) @ _discount(self.hits[:, :k].shape[1]) / self._best_gain(k))

    def propensity_precision_parts(
        self, k: int, weights: NDArray[np.float64], wanted: NDArray[np.bool_] | None = None
    ) -> RowParts:
        """PSP@k by row, as pyxclib defines it: the mean that was won over the mean that could be.

        weights: (labels,). wanted: (labels,), count the hits on these only: what they contribute to PSP@k.
        """
        won = (self._first(k, wanted) * self._weights(k, weights)).sum(axis=1)
        row, _, weight = self._ideal(k, weights)
        return RowParts(won, _sums(row, weight, len(won)))

    def propensity_ndcg_parts(self, k: int, weights: NDArray[np.float64]) -> RowParts:
        """PSnDCG@k by row, as pyxclib defines it; weights: (labels,).

        Both won and possible are discounted gains over the row's best unweighted gain, so that rows with few
        positives weigh as much as others.
        """
        discount, best = _discount(k), self._best_gain(k)
        won = (self._first(k, None) * self._weights(k, weights)) @ discount[: self.hits[:, :k].shape[1]]
        row, place, weight = self._ideal(k, weights)
        return RowParts(won / best, _sums(row, weight * discount[place], len(won)) / best)

    def _counted(self, won: NDArray[np.float64]) -> RowParts:
        return RowParts(won, (self.positives > 0).astype(np.float64))

    def _first(self, k: int, wanted: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        hits = self.hits[:, :k]
        return hits if wanted is None else hits & wanted[np.maximum(self.rows[:, :k], 0)]

    def _weights(self, k: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return weights[np.maximum(self.rows[:, :k], 0)]

    def _best_gain(self, k: int) -> NDArray[np.float64]:
        """Discounted gain of min(k, positives) hits at the first places, (n,); 1 where there are no positives."""
        return np.cumsum(_discount(k))[np.clip(self.positives, 1, k) - 1]

    def _ideal(
        self, k: int, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """The k heaviest positives of every row, as (row, place from 0, weight) triples."""
        row, weight = _entry_rows(self.truth), weights[self.truth.indices]
        order = np.lexsort((-weight, row))
        place = np.arange(len(row)) - self.truth.indptr[row]
        kept = place < k
        return row[kept], place[kept], weight[order][kept]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Said probabilities against what came true, in equal-width bins; all (bins,), 0 where a bin is empty.

    error: the expected calibration error, |said − came true| averaged over predictions (Naeini et al., AAAI 2015).
    """

    counts: NDArray[np.int64]
    said: NDArray[np.float64]
    came_true: NDArray[np.float64]
    error: float

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], hits: NDArray[np.bool_], *, bins: int = 10) -> Reliability:
        """probabilities: (m,) in [0, 1] of predictions; hits: (m,), whether each was right."""
        place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
        counts = np.bincount(place, minlength=bins)
        several = np.maximum(counts, 1)
        said = np.bincount(place, probabilities, minlength=bins) / several
        came_true = np.bincount(place, hits, minlength=bins) / several
        error = float((counts * np.abs(said - came_true)).sum() / max(counts.sum(), 1))
        return cls(counts, said, came_true, error)


def drawn_rows(count: int, rows: int | None) -> NDArray[np.int64]:
    """All row numbers, or `rows` of them, ascending; the draw depends on the two numbers alone."""
    if rows is None or rows >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).permutation(count)[:rows])


def without(
    rows: NDArray[np.int64], scores: NDArray[np.float32], excluded: csr_matrix, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rankings (n, depth) without the labels that are excluded in each row, the rest moved up; the first k of them.

    excluded: (n, labels) CSR. Places left empty hold −1 and −inf.
    """
    flat = _entry_rows(excluded) * excluded.shape[1] + excluded.indices
    keys = np.arange(len(rows))[:, None] * excluded.shape[1] + rows
    out = np.isin(keys, flat) & (rows >= 0)
    order = np.argsort(out, axis=1, kind="stable")[:, :k]
    rows, scores = np.where(out, -1, rows), np.where(out, np.float32(-np.inf), scores)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _entry_rows(matrix: csr_matrix) -> NDArray[np.int64]:
    """The row of each entry of a CSR matrix."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _sums(row: NDArray[np.int64], values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(row, values, minlength=rows), dtype=np.float64)


def _discount(k: int) -> NDArray[np.float64]:
    return np.asarray(1.0 / np.log2(np.arange(2, k + 2)))
