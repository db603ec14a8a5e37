"""How a bundle ranks, chosen on dev: weight and temperature of the example memory's votes, and the calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from index.calibration import IDENTITY, Calibration, fit_calibration
from index.layered import Neighbours
from index.memory import ExampleLabels, Votes, vote
from index.ranking import Predictions, Ranking, rank
from training.dataset import Dataset
from training.metrics import Judged, inverse_propensity, without

_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
_TEMPERATURES = (0.05, 0.1, 0.15)
_DEPTH = 20
# Head, order, depth and tail: no one of them may be bought with another.
_CHOSEN_BY = ("P@1", "nDCG@5", "R@10", "PSP@5")


@dataclass(frozen=True, slots=True)
class DevNeighbours:
    """What the built indexes find for dev's queries: labels, and examples (None without a memory) with their labels."""

    labels: Neighbours
    examples: Neighbours | None
    carried: ExampleLabels


def choose_ranking(
    dataset: Dataset, near: DevNeighbours, draft: Ranking, report: Callable[[str], None]
) -> tuple[Ranking, Calibration]:
    """The ranking with the highest P@1 + nDCG@5 + R@10 + PSP@5 on dev, and probabilities for its scores.

    draft: all that is not chosen here. Without dev rows that have labels the memory is off and scores stay as they are.
    """
    truth = dataset.dev.relevance
    rows = np.flatnonzero(np.diff(truth.indptr))
    if not len(rows):
        report("no dev rows with labels: the memory is off, and probabilities are plain scores")
        return draft, IDENTITY
    weights = inverse_propensity(dataset.counts, dataset.examples)
    best: _Candidate | None = None
    for ranking, votes in _candidates(near, draft):
        ranked = _ranked(dataset, near.labels, votes, ranking)
        judged = Judged.of(ranked.rows[rows], truth[rows])
        figures = (judged.precision(1), judged.ndcg(5), judged.recall(10), judged.propensity_precision(5, weights))
        if not ranking.memory_weight:
            report(f"dev, memory off: {_shown(figures)}")
        if best is None or sum(figures) > best.total:
            best = _Candidate(sum(figures), figures, ranking, ranked, judged)
    assert best is not None  # noqa: S101 - the draft itself is a candidate
    ranking, ranked, judged = best.ranking, best.ranked, best.judged
    if ranking.memory_weight:
        votes_are = f"weight {ranking.memory_weight}, temperature {ranking.memory_temperature}"
        report(f"dev, memory {votes_are}: {_shown(best.figures)}")
    shown_places = judged.rows >= 0
    return ranking, fit_calibration(ranked.scores[rows][shown_places], judged.hits[shown_places])


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A ranking, what it makes of dev, and its figures in the order of _CHOSEN_BY with their sum."""

    total: float
    figures: tuple[float, ...]
    ranking: Ranking
    ranked: Predictions
    judged: Judged


def _shown(figures: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {100 * figure:.1f}" for name, figure in zip(_CHOSEN_BY, figures, strict=True))


def _candidates(near: DevNeighbours, draft: Ranking) -> Iterator[tuple[Ranking, Votes | None]]:
    yield replace(draft, memory_weight=0.0), None
    if near.examples is None:
        return
    for temperature in _TEMPERATURES:
        votes = vote(near.examples, near.carried, temperature=temperature)
        for weight in _WEIGHTS:
            yield replace(draft, memory_weight=weight, memory_temperature=temperature), votes


def _ranked(dataset: Dataset, found: Neighbours, votes: Votes | None, ranking: Ranking) -> Predictions:
    """Dev's predictions, without the labels that its rows exclude."""
    excluded = dataset.dev.excluded
    depth = _DEPTH + int(np.diff(excluded.indptr).max(initial=0))
    ranked = rank(found, votes, ranking, depth)
    return Predictions(*without(ranked.rows, ranked.scores, excluded, _DEPTH))
