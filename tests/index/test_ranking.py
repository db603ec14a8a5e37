"""Votes, posterior and mixture against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from immutables import Map

from index.layered import Neighbours
from index.memory import ExampleLabels, Votes, vote
from index.packed import Lists
from index.ranking import Ranking, posterior, rank


def neighbours(rows: list[list[int]], scores: list[list[float]]) -> Neighbours:
    return Neighbours(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32))


def slow_votes(found: Neighbours, carried: list[dict[int, bool]], temperature: float) -> list[dict[int, float]]:
    answers = []
    for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        heard = [(row, math.exp(score / temperature)) for row, score in zip(rows, scores, strict=True) if row >= 0]
        total = sum(weight for _, weight in heard)
        votes: dict[int, float] = {}
        for row, weight in heard:
            for label, right in carried[row].items():
                votes[label] = votes.get(label, 0.0) + (weight if right else -weight) / total
        answers.append(votes)
    return answers


@given(st.data())
def test_votes_are_the_softmax_of_the_neighbours_summed_by_label(data: st.DataObject) -> None:
    some_labels = st.lists(st.integers(0, 6), max_size=4, unique=True)
    carried = data.draw(st.lists(some_labels, max_size=6))
    dropped = data.draw(st.lists(some_labels, min_size=len(carried), max_size=len(carried)))
    least = 0 if carried else 1
    pairs = st.dictionaries(st.integers(0, 6), st.booleans(), max_size=3)
    added = data.draw(st.lists(pairs, min_size=least, max_size=3))
    left = [{label: True for label in own if label not in gone} for own, gone in zip(carried, dropped, strict=True)]
    everything = [*left, *added]
    count = data.draw(st.integers(0, 3))
    row = st.lists(st.integers(-1, len(everything) - 1), min_size=3, max_size=3)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    score = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)
    scores = data.draw(st.lists(score, min_size=count, max_size=count))
    found = Neighbours(np.array(rows, dtype=np.int64).reshape(-1, 3), np.array(scores, dtype=np.float32).reshape(-1, 3))
    labels = ExampleLabels(
        Lists.pack(carried),
        Map({number: tuple(own.items()) for number, own in enumerate(added) if own}),
        Map({example: tuple(gone) for example, gone in enumerate(dropped) if gone}),
    )
    votes = vote(found, labels, temperature=0.5)
    got: list[dict[int, float]] = [{} for _ in range(count)]
    for query, label, weight in zip(votes.query.tolist(), votes.label.tolist(), votes.weight.tolist(), strict=True):
        assert label not in got[query]
        got[query][label] = weight
    for mine, theirs in zip(got, slow_votes(found, everything, 0.5), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)


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
    votes = vote(neighbours([[0, 1]], [[0.8, 0.8]]), ExampleLabels(Lists.pack([[2, 9], [2]])))
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


def test_votes_against_a_label_count_down_to_0_and_never_bring_one_in() -> None:
    found = neighbours([[0, 1, 2], [3, 0, -1]], [[0.5, 0.4, 0.3], [0.6, 0.2, -np.inf]])
    ranking = Ranking(temperature=0.1, positives=1, memory_weight=0.5)
    votes = Votes(
        np.array([0, 0, 0, 0, 1, 1]),
        np.array([0, 1, 2, 8, 1, 9]),
        np.array([-1.0, -0.001, 0.5, -0.5, -0.5, 0.5], dtype=np.float32),
    )
    own = posterior(found, ranking)
    predictions = rank(found, votes, ranking, 5)
    wanted = [
        {0: 0.0, 1: 0.5 * own[0, 1] - 0.0005, 2: 0.5 * own[0, 2] + 0.25},
        {3: 0.5 * own[1, 0], 0: 0.5 * own[1, 1], 9: 0.25},
    ]
    for place, scores in enumerate(wanted):
        order = sorted(scores, key=lambda row: (-scores[row], row))
        assert predictions.rows[place].tolist() == [*order, *[-1] * (5 - len(order))]
        assert predictions.scores[place][: len(order)].tolist() == pytest.approx(
            [scores[row] for row in order], rel=1e-4
        )


def test_what_may_be_shown_is_scored_as_among_all() -> None:
    found = neighbours([[4, 2, 7, 1]], [[0.9, 0.7, 0.5, 0.1]])
    shown = neighbours([[2, 1, 30, -1]], [[0.7, 0.1, -0.2, -np.inf]])
    ranking = Ranking(temperature=0.1, positives=2, memory_weight=0.25)
    votes = Votes(np.array([0, 0]), np.array([1, 99]), np.array([0.4, 0.2], dtype=np.float32))
    threshold = np.logaddexp(5.0, 1.0)
    own = {row: 0.75 / (1 + math.exp(threshold - score)) for row, score in ((2, 7.0), (1, 1.0), (30, -2.0))}
    wanted = {**own, 1: own[1] + 0.1, 99: 0.05}
    predictions = rank(found, votes, ranking, 5, shown)
    order = sorted(wanted, key=lambda row: -wanted[row])
    assert predictions.rows[0].tolist() == [*order, -1]
    assert predictions.scores[0][:4].tolist() == pytest.approx([wanted[row] for row in order], rel=1e-5)
    nothing = rank(found, None, ranking, 2, neighbours([[-1, -1]], [[-np.inf, -np.inf]]))
    assert nothing.rows.tolist() == [[-1, -1]]
