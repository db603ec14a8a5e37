"""Ranking metrics of extreme classification: P@k, R@k, nDCG@k, PSP@k, by label frequency and for unseen labels."""

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
class Judged:
    """Rankings against the truth, for the n test rows that have labels.

    hits: (n, k) bool, whether the label at each place is relevant. rows: (n, k) int64, the labels; −1 for none.
    truth: (n, labels) CSR.
    """

    hits: NDArray[np.bool_]
    rows: NDArray[np.int64]
    truth: csr_matrix

    @classmethod
    def of(cls, rows: NDArray[np.int64], truth: csr_matrix) -> Judged:
        """rows: (n, k), ranked label rows of every test row, −1 where there is none; a row is named at most once."""
        flat = np.repeat(np.arange(len(rows)), np.diff(truth.indptr)) * truth.shape[1] + truth.indices
        keys = np.arange(len(rows))[:, None] * truth.shape[1] + rows
        return cls(np.isin(keys, flat) & (rows >= 0), rows, truth)

    @property
    def positives(self) -> NDArray[np.int64]:
        return np.asarray(np.diff(self.truth.indptr), dtype=np.int64)

    def precision(self, k: int) -> float:
        """P@k: hits among the first k, over k."""
        return _mean(self.hits[:, :k].sum(axis=1) / k)

    def recall(self, k: int) -> float:
        """R@k: hits among the first k, over the row's positives."""
        return _mean(self.hits[:, :k].sum(axis=1) / self.positives)

    def ndcg(self, k: int) -> float:
        """nDCG@k with log2 discount, over the best that min(k, positives) hits could reach."""
        discount = 1.0 / np.log2(np.arange(2, k + 2))
        best = np.cumsum(discount)[np.minimum(self.positives, k) - 1]
        places = self.hits[:, :k].shape[1]
        return _mean((self.hits[:, :k] * discount[:places]).sum(axis=1) / best)

    def propensity_precision(self, k: int, weights: NDArray[np.float64]) -> float:
        """PSP@k: inverse propensity `weights` (labels,) of the hits, over that of the best possible first k."""
        won = (self.hits[:, :k] * weights[np.maximum(self.rows[:, :k], 0)]).sum()
        best = sum(
            np.sort(weights[self.truth.indices[start:stop]])[::-1][:k].sum()
            for start, stop in zip(self.truth.indptr[:-1], self.truth.indptr[1:], strict=True)
        )
        return float(won / best) if best else 0.0

    def restricted_recall(self, k: int, wanted: NDArray[np.bool_]) -> tuple[float, int]:
        """R@k of the positives among the `wanted` labels (labels,) only, and the rows that have any of them."""
        part = self.truth @ _diagonal(wanted)
        part.eliminate_zeros()
        rows = np.flatnonzero(np.diff(part.indptr))
        hits = self.hits[rows, :k] & wanted[np.maximum(self.rows[rows, :k], 0)]
        return _mean(hits.sum(axis=1) / np.diff(part.indptr)[rows]), len(rows)


def _diagonal(wanted: NDArray[np.bool_]) -> csr_matrix:
    count = len(wanted)
    return csr_matrix((wanted.astype(np.float32), np.arange(count), np.arange(count + 1)), shape=(count, count))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
