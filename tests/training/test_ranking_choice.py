"""The choice of the ranking: the best of all candidates by figures worked out anew, and nothing without dev."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from index.layered import Neighbours
from index.memory import ExampleLabels
from index.packed import Lists
from index.ranking import Ranking
from training.ranking_choice import DevNeighbours, choose_ranking

LABELS, EXAMPLES, QUERIES = 12, 30, 25
DRAFT = Ranking(0.05, 1, 0.0, neighbours=8)


def case(seed: int, *, excluded: bool = False) -> tuple[Any, DevNeighbours]:
    random = np.random.default_rng(seed)
    truth = (random.random((QUERIES, LABELS)) < 0.2).astype(np.float32)
    truth[0] = 0  # a row without labels is not judged
    out = np.zeros_like(truth)
    if excluded:
        out = ((random.random(truth.shape) < 0.3) & (truth == 0)).astype(np.float32)
    scores = np.sort(random.random((QUERIES, LABELS)).astype(np.float32), axis=1)[:, ::-1]
    rows = np.array([random.permutation(LABELS) for _ in range(QUERIES)])
    near = np.array([random.permutation(EXAMPLES)[:8] for _ in range(QUERIES)])
    cosines = np.sort(random.random((QUERIES, 8)).astype(np.float32), axis=1)[:, ::-1]
    carried = [sorted(random.choice(LABELS, 2, replace=False).tolist()) for _ in range(EXAMPLES)]
    dataset = SimpleNamespace(
        dev=SimpleNamespace(relevance=csr_matrix(truth), excluded=csr_matrix(out)),
        counts=random.integers(0, 9, LABELS),
        examples=EXAMPLES,
    )
    labels = ExampleLabels(Lists.pack(carried))
    return dataset, DevNeighbours(Neighbours(rows, scores.copy()), Neighbours(near, cosines.copy()), labels)


def total(dataset: Any, near: DevNeighbours, weight: float, temperature: float) -> float:
    """P@1 + nDCG@5 + R@10 + PSP@5 by loops in float64."""
    c = (np.log(EXAMPLES) - 1) * 2.5**0.55
    propensity = 1 + c * (dataset.counts + 1.5) ** -0.55
    truth, out = dataset.dev.relevance.toarray(), dataset.dev.excluded.toarray()
    figures, won, most = [], 0.0, 0.0
    for query in np.flatnonzero(truth.any(axis=1)):
        score = np.zeros(LABELS)
        cosines = near.labels.scores[query].astype(np.float64) / DRAFT.temperature
        threshold = np.logaddexp.reduce(cosines[1:])  # without the best `positives`
        score[near.labels.rows[query]] = (1 - weight) / (1 + np.exp(threshold - cosines))
        if weight:
            assert near.examples is not None
            votes = np.exp(near.examples.scores[query].astype(np.float64) / temperature)
            for example, vote in zip(near.examples.rows[query], votes / votes.sum(), strict=True):
                score[near.carried.base[example]] += weight * vote
        score[out[query] > 0] = -np.inf
        ranked = [label for label in np.argsort(-score, kind="stable") if score[label] > -np.inf]
        hits = truth[query][ranked]
        count = int(truth[query].sum())
        discounts = 1 / np.log2(np.arange(2, 7))
        gain = (hits[:5] * discounts[: len(hits[:5])]).sum() / discounts[: min(5, count)].sum()
        figures.append([hits[0], gain, hits[:10].sum() / count])
        won += sum(propensity[label] for label in ranked[:5] if truth[query][label])
        most += np.sort(propensity[truth[query] > 0])[::-1][:5].sum()
    return float(np.mean(figures, axis=0).sum() + won / most)


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_no_other_candidate_is_better(seed: int, excluded: bool) -> None:
    dataset, near = case(seed, excluded=excluded)
    said: list[str] = []
    ranking, calibration = choose_ranking(dataset, near, DRAFT, said.append)
    candidates = [(0.0, 0.05)]
    candidates += [(weight / 10, temperature) for temperature in (0.05, 0.1, 0.15) for weight in range(1, 7)]
    totals = [total(dataset, near, *candidate) for candidate in candidates]
    chosen = total(dataset, near, ranking.memory_weight, ranking.memory_temperature)
    assert chosen == pytest.approx(max(totals), abs=1e-6)
    assert (ranking.memory_weight, ranking.memory_temperature) in candidates
    assert (ranking.temperature, ranking.positives, ranking.neighbours) == (0.05, 1, 8)
    assert said[0].startswith("dev, memory off: P@1")
    assert list(calibration.probabilities) == sorted(calibration.probabilities)


def test_without_a_memory_nothing_votes() -> None:
    dataset, near = case(0)
    ranking, _ = choose_ranking(dataset, DevNeighbours(near.labels, None, near.carried), DRAFT, lambda line: None)
    assert ranking == DRAFT


def test_without_dev_rows_that_have_labels_scores_stay_as_they_are() -> None:
    dataset, near = case(0)
    dataset.dev.relevance = csr_matrix((QUERIES, LABELS), dtype=np.float32)
    said: list[str] = []
    ranking, calibration = choose_ranking(dataset, near, DRAFT, said.append)
    assert ranking == DRAFT
    assert calibration(np.array([0.25], dtype=np.float32)) == pytest.approx(0.25)
    assert "no dev rows" in said[0]
