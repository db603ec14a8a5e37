"""From a query's neighbours to its ranked labels: decoupled posterior of the label list, mixed with memory votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.layered import Neighbours
from index.memory import NEIGHBOURS, TEMPERATURE, Votes, sum_pairs

# So many labels are retrieved at least, and the threshold Z is taken over just these, whatever k is asked for.
CANDIDATES = 100


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a model's cosines become scores.

    temperature: τ of training. positives: labels that a query has on average; so many are left out of Z.
    memory_weight: share of the votes in the score, 0 without a memory. neighbours: examples that vote.
    memory_temperature: by which their cosines are divided.
    """

    temperature: float
    positives: int
    memory_weight: float
    neighbours: int = NEIGHBOURS
    memory_temperature: float = TEMPERATURE


@dataclass(frozen=True, slots=True)
class Predictions:
    """Ranked labels of n queries: `rows` (n, k) int64, -1 where there is none; `scores` (n, k) float32, descending."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def posterior(found: Neighbours, ranking: Ranking, among: Neighbours | None = None) -> NDArray[np.float32]:
    """σ(s/τ − Z) of each retrieved label, (n, k) float32 in (0, 1).

    Training compares each positive with Z, the logsumexp over the query's true negatives (decoupled softmax, DEXML,
    ICLR 2024). Which of the retrieved labels are negatives is unknown here, so Z leaves out the best `positives`.
    among: the neighbours that Z is taken over, where they are others than those asked about.
    """
    scores = found.scores.astype(np.float64) / ranking.temperature
    all_scores = scores if among is None else among.scores.astype(np.float64) / ranking.temperature
    skipped = min(ranking.positives, max(0, all_scores.shape[1] - 1))
    negatives = all_scores[:, skipped:CANDIDATES]
    threshold = np.logaddexp.reduce(negatives, axis=1, keepdims=True, initial=-np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        probabilities = 1.0 / (1.0 + np.exp(threshold - scores))
    return np.where(np.isfinite(scores), probabilities, 0.0).astype(np.float32)


def rank(
    found: Neighbours,
    votes: Votes | None,
    ranking: Ranking,
    k: int,
    shown: Neighbours | None = None,
) -> Predictions:
    """The k best labels by (1 − w) · posterior + w · vote, 0 where votes against it are more; ties go to the lower row.

    found: the label neighbours (n, at least min(k, labels)). votes: for and against labels that may be shown, None
    without a memory. A label that only one of the two lists names counts as 0 in the other; one that votes alone name
    has to have more for it than against it. shown: where not all labels may be shown, the neighbours (n, at least
    min(k, these labels)) among those that may; their scores are what they are among all.
    """
    asked = found if shown is None else shown
    weight = ranking.memory_weight if votes is not None else 0.0
    known = asked.rows >= 0
    query = np.nonzero(known)[0]
    label = asked.rows[known]
    score = (1.0 - weight) * posterior(asked, ranking, None if shown is None else found)[known].astype(np.float64)
    if votes is not None:
        votes = _useful(votes, query, label)
        query = np.concatenate([query, votes.query])
        label = np.concatenate([label, votes.label])
        score = np.concatenate([score, weight * votes.weight])
    return _best(query, label, score, len(asked.rows), k)


def _useful(votes: Votes, query: NDArray[np.int64], label: NDArray[np.int64]) -> Votes:
    """The votes without those against labels that are not among these (query, label) pairs."""
    against = votes.weight <= 0.0
    if not against.any():
        return votes
    width = int(max(votes.label.max(), label.max(initial=0))) + 1
    kept = ~against | np.isin(votes.query * width + votes.label, query * width + label)
    return Votes(votes.query[kept], votes.label[kept], votes.weight[kept])


def _best(
    query: NDArray[np.int64], label: NDArray[np.int64], score: NDArray[np.float64], queries: int, k: int
) -> Predictions:
    rows = np.full((queries, k), -1, dtype=np.int64)
    scores = np.full((queries, k), -np.inf, dtype=np.float32)
    query, label, score = sum_pairs(query, label, score)
    score = np.maximum(score, 0.0)
    order = np.lexsort((label, -score, query))
    query, label, score = query[order], label[order], score[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    kept = place < k
    rows[query[kept], place[kept]] = label[kept]
    scores[query[kept], place[kept]] = score[kept]
    return Predictions(rows, scores)
