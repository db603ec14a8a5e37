"""Votes, posterior and mixture against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.layered import Neighbours
from index.memory import ExampleLabels, vote
from index.packed import Lists
from index.ranking import Ranking, posterior, rank


def neighbours(rows: list[list[int]], scores: list[list[float]]) -> Neighbours:
    return Neighbours(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32))


def slow_votes(found: Neighbours, carried: list[list[int]], temperature: float) -> list[dict[int, float]]:
    answers = []
    for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        heard = [(row, math.exp(score / temperature)) for row, score in zip(rows, scores, strict=True) if row >= 0]
        total = sum(weight for _, weight in heard)
        votes: dict[int, float] = {}
        for row, weight in heard:
            for label in carried[row]:
                votes[label] = votes.get(label, 0.0) + weight / total
        answers.append(votes)
    return answers


@given(st.data())
def test_votes_are_the_softmax_of_the_neighbours_summed_by_label(data: st.DataObject) -> None:
    carried = data.draw(st.lists(st.lists(st.integers(0, 6), max_size=4, unique=True), min_size=1, max_size=6))
    added = data.draw(st.lists(st.integers(0, 6), max_size=3))
    everything = carried + [[label] for label in added]
    count = data.draw(st.integers(0, 3))
    row = st.lists(st.integers(-1, len(everything) - 1), min_size=3, max_size=3)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    score = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)
    scores = data.draw(st.lists(score, min_size=count, max_size=count))
    found = Neighbours(np.array(rows, dtype=np.int64).reshape(-1, 3), np.array(scores, dtype=np.float32).reshape(-1, 3))
    votes = vote(found, ExampleLabels(Lists.pack(carried), np.array(added, dtype=np.int64)), temperature=0.5)
    got: list[dict[int, float]] = [{} for _ in range(count)]
    for query, label, weight in zip(votes.query.tolist(), votes.label.tolist(), votes.weight.tolist(), strict=True):
        assert label not in got[query]
        got[query][label] = weight
    for mine, theirs in zip(got, slow_votes(found, everything, 0.5), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_posterior_compares_with_the_labels_behind_the_best() -> None:
    found = neighbours([[4, 2, 7, 1]], [[0.9, 0.7, 0.5, 0.1]])
    ranking = Ranking(temperature=0.1, positives=2, memory_weight=0.0)
    threshold = math.log(math.exp(5.0) + math.exp(1.0))
    wanted = [1 / (1 + math.exp(threshold - score)) for score in (9.0, 7.0, 5.0, 1.0)]
    assert posterior(found, ranking)[0].tolist() == pytest.approx(wanted, rel=1e-5)


def test_posterior_is_finite_for_extreme_scores_and_single_labels() -> None:
    for scores in ([[1e4, -1e4, 0.0]], [[1.0, -np.inf, -np.inf]], [[-np.inf] * 3]):
        found = neighbours([[0, 1, 2]], scores)
        assert np.isfinite(posterior(found, Ranking(0.05, 5, 0.0))).all()
    assert posterior(neighbours([[0]], [[1.0]]), Ranking(0.05, 5, 0.0))[0, 0] == pytest.approx(0.5)


def test_the_mixture_ranks_by_the_weighted_sum() -> None:
    found = neighbours([[0, 1, 2]], [[0.5, 0.4, 0.3]])
    ranking = Ranking(temperature=0.1, positives=1, memory_weight=0.4)
    votes = vote(
        neighbours([[0, 1]], [[0.8, 0.8]]), ExampleLabels(Lists.pack([[2, 9], [2]]), np.zeros(0, dtype=np.int64))
    )
    own = posterior(found, ranking)[0]
    wanted = {0: 0.6 * own[0], 1: 0.6 * own[1], 2: 0.6 * own[2] + 0.4 * 1.0, 9: 0.4 * 0.5}
    predictions = rank(found, votes, ranking, 6)
    order = sorted(wanted, key=lambda row: -wanted[row])
    assert predictions.rows[0].tolist() == [*order, -1, -1]
    assert predictions.scores[0][:4].tolist() == pytest.approx([wanted[row] for row in order], rel=1e-5)
    assert np.isneginf(predictions.scores[0][4:]).all()


def test_ties_go_to_the_lower_row_and_k_cuts() -> None:
    found = neighbours([[5, 3, 4], [-1, -1, -1]], [[0.5, 0.5, 0.5], [-np.inf] * 3])
    predictions = rank(found, None, Ranking(0.1, 1, 0.3), 2)
    assert predictions.rows.tolist() == [[3, 4], [-1, -1]]
