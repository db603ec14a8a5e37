"""Added examples that training had too vote as if their labels were added there; votes for new labels count more."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from immutables import Map
from numpy.typing import NDArray

from index.addition import Addition
from index.bundle import Bundle
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.example_finder import ExampleFinder
from index.layered import Neighbours
from index.memory import ExampleLabels, vote
from index.packed import Lists
from index.snapshot import Snapshot
from snapshot_support import MEMORIES, Model, after, one_by_one, opened_memory, re_indexed, remembering

Said = tuple[tuple[int, bool], ...]


@pytest.fixture(scope="module")
def bundle(tiny_collection: Path, tiny_corpus: Path) -> tuple[Bundle, list[str]]:
    return remembering(tiny_collection, tiny_corpus)


def neighbours(rows: list[list[int]], scores: list[list[float]]) -> Neighbours:
    return Neighbours(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32))


def voted(found: Neighbours, labels: ExampleLabels, most: int | None = None) -> dict[tuple[int, int], float]:
    votes = vote(found, labels, temperature=0.1, most=most)
    pairs = zip(votes.query.tolist(), votes.label.tolist(), strict=True)
    return dict(zip(pairs, votes.weight.tolist(), strict=True))


def test_a_twin_gives_its_label_the_vote_of_the_others() -> None:
    added: Map[int, Said] = Map({0: ((9, True),), 1: ((8, True), (2, False))})
    labels = ExampleLabels(Lists.pack([[2], [3, 4], [5]]), added, twins=Map({0: (1,), 1: (0, 2)}))
    # exp(0 / 0.1), exp(-1), exp(-2) of three examples; the twin of the second is no fourth.
    first, second, third = (np.exp(-place) / (1 + np.exp(-1) + np.exp(-2)) for place in range(3))
    found = neighbours([[0, 1, 3, 2]], [[0.9, 0.8, 0.8, 0.7]])
    wanted = {2: first, 3: second, 4: second, 9: second, 5: third}
    assert voted(found, labels) == pytest.approx({(0, row): share for row, share in wanted.items()}, abs=1e-6)
    # Without its base it is a neighbour like any other.
    assert voted(neighbours([[3, -1]], [[0.8, -np.inf]]), labels) == pytest.approx({(0, 9): 1.0})
    # For what is said twice there is one vote; against what its base says there is as much as for it.
    agreeing = replace(labels, added=Map({0: ((4, True), (3, False))}), twins=Map({0: (1,)}))
    assert voted(neighbours([[1, 3]], [[0.5, 0.5]]), agreeing) == pytest.approx({(0, 3): 0.0, (0, 4): 1.0})
    # Of several bases the first that is found: the other query's are none.
    found = neighbours([[2, 4, -1], [4, 1, -1], [0, -1, -1]], [[0.7, 0.7, -np.inf], [0.9, 0.8, 0], [0.5, 0, 0]])
    half = 1 / (1 + np.exp(-1))
    wanted_of = {(0, 2): -1, (0, 5): 1, (0, 8): 1, (1, 2): -half, (1, 8): half, (1, 3): 1 - half, (1, 4): 1 - half}
    assert voted(found, labels) == pytest.approx({**wanted_of, (2, 2): 1.0}, abs=1e-6)
    nothing = Neighbours(np.zeros((2, 0), dtype=np.int64), np.zeros((2, 0), dtype=np.float32))
    assert voted(nothing, labels) == {} and voted(neighbours([[-1]], [[-np.inf]]), labels) == {}


@pytest.mark.parametrize("seed", range(6))
def test_votes_are_those_of_a_memory_in_which_twins_are_merged(seed: int) -> None:
    chooser = np.random.default_rng(seed)
    base = [chooser.choice(9, size=int(chooser.integers(0, 4)), replace=False).tolist() for _ in range(20)]
    places = np.repeat(chooser.normal(size=10), 2)  # every second example of the base is a duplicate
    added: dict[int, Said] = {
        number: tuple((int(row), bool(chooser.integers(2))) for row in chooser.choice(9, size=2, replace=False))
        for number in range(10)
    }
    twins = {number: (4 * number, 4 * number + 1) for number in range(5)}
    dropped = {1: tuple(base[1][:1]), 8: tuple(base[8])}
    labels = ExampleLabels(Lists.pack(base), Map(added), Map(dropped), Map(twins))
    rows, scores = np.full((7, 30), -1, dtype=np.int64), np.full((7, 30), -np.inf, dtype=np.float32)
    for query in range(7):
        own = chooser.permutation(30)[: chooser.integers(1, 31)]
        of_base = np.concatenate([places, [places[4 * number] if number < 5 else number / 7 for number in range(10)]])
        cosines = np.cos(of_base + query)
        order = own[np.lexsort((own, -cosines[own]))]
        rows[query, : len(order)], scores[query, : len(order)] = order, cosines[order]
    for most in (None, 1, 3, 8, 100):
        wanted: dict[tuple[int, int], float] = {}
        for query in range(7):
            keys: dict[int, tuple[float, set[tuple[int, bool]]]] = {}
            there = rows[query][rows[query] >= 0].tolist()
            for row, score in zip(there, scores[query].tolist(), strict=False):
                if row < 20:
                    keys[row] = score, {(label, True) for label in base[row] if label not in dropped.get(row, ())}
                else:
                    home = next((twin for twin in twins.get(row - 20, ()) if twin in there), row)
                    keys.setdefault(home, (score, set()))[1].update(added[row - 20])
            kept = list(keys.values())[:most]
            shares = np.exp(np.array([score for score, _ in kept]) / 0.1)
            for share, (_, said) in zip(shares / shares.sum(), kept, strict=True):
                for label, right in said:
                    wanted[query, label] = wanted.get((query, label), 0.0) + (share if right else -share)
        assert voted(Neighbours(rows, scores), labels, most) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("factory", MEMORIES)
def test_many_examples_are_known_again_at_once(factory: str, tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    vectors = chooser.standard_normal((3000, 32)).astype(np.float32) + 0.5  # all have something in common
    vectors[500:520] = vectors[7]
    vectors[1500:] = vectors[:1500]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    memory = opened_memory(factory, vectors, tmp_path)
    asked = vectors[chooser.permutation(3000)[:400]]
    asked[::4] = chooser.standard_normal((100, 32))
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True) * np.float32(1 + 3e-7)
    number, place = ExampleFinder(memory, 2500).pairs(asked)
    wanted = np.argwhere(asked.astype(np.float64) @ vectors[:2500].astype(np.float64).T > 1 - 1e-5)
    assert np.stack([number, place], axis=1).tolist() == wanted.tolist() and len(wanted) > 400
    none = ExampleFinder(memory, 2500).pairs(np.zeros((0, 32), dtype=np.float32))
    assert [len(part) for part in none] == [0, 0]
    assert [len(part) for part in ExampleFinder(memory, 0).pairs(asked)] == [0, 0]


def all_votes(snapshot: Snapshot, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, label rows)."""
    votes = snapshot.votes(queries)
    assert votes is not None
    found = np.zeros((len(queries), snapshot.labels.rows), dtype=np.float32)
    found[votes.query, votes.label] = votes.weight
    return found


def without_ties(bundle: Bundle, texts: list[str], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of the queries whose last neighbour is one by more than rounding."""
    cosines = np.sort(queries.astype(np.float64) @ bundle.queries.texts(texts).astype(np.float64).T, axis=1)[:, ::-1]
    last = bundle.manifest.ranking.neighbours
    return queries[cosines[:, last - 1] > cosines[:, last] + 1e-5]


def told_again(bundle: tuple[Bundle, list[str]]) -> Iterator[LabelChange]:
    """What training knew: of every text that it had once, all labels."""
    for place, text in enumerate(bundle[1]):
        if bundle[1].count(text) == 1:
            yield Feedback(text, tuple(bundle[0].labels[int(row)].id for row in bundle[0].example_labels[place]))


def test_what_training_knew_changes_no_vote_and_a_new_label_takes_none(bundle: tuple[Bundle, list[str]]) -> None:
    start, texts = Snapshot.of(voting(bundle, 1.0)[0]), sorted(set(bundle[1]))
    queries = without_ties(*bundle, bundle[0].queries.texts([*texts[:100], "apple pie today", "zebra"]))
    assert len(queries) > 50
    told = after(start, *told_again(bundle))
    assert np.abs(all_votes(told, queries) - all_votes(start, queries)).max() < 1e-5
    again = after(start, PutLabel("again", "", tuple(texts)))
    assert len(again.example_labels.twins) == len(texts)
    found = all_votes(again, queries)
    assert np.abs(found[:, :-1] - all_votes(start, queries)).max() < 1e-5
    one = after(start, PutLabel("again", "", (texts[3],)))
    query = bundle[0].queries.texts([texts[3]])
    place = bundle[1].index(texts[3])
    carried = bundle[0].example_labels[place]
    assert all_votes(one, query)[0, -1] <= all_votes(one, query)[0, carried].min() + 1e-6
    assert np.abs(all_votes(one, query)[:, :-1] - all_votes(start, query)).max() < 1e-6


def test_a_twin_whose_base_is_gone_votes_alone_also_after_a_re_indexing(bundle: tuple[Bundle, list[str]]) -> None:
    text = next(text for text in bundle[1] if bundle[1].count(text) == 1)
    start = after(Snapshot.of(bundle[0]), PutLabel("again", "", (text, "zebra")))
    gone = after(start, RemoveExample(text), Feedback(text, ("again",)))
    query = bundle[0].queries.texts([text, "zebra", "apple pie"])
    for snapshot in (start, gone):
        assert np.allclose(all_votes(re_indexed(snapshot), query), all_votes(snapshot, query), atol=1e-6)
    assert list(re_indexed(start).example_labels.twins.values()) == list(start.example_labels.twins.values())
    assert len(re_indexed(gone).example_labels.twins) == 0
    kept = after(start, RemoveExample(text, "again"))
    assert len(kept.example_labels.twins) == 0 and len(start.example_labels.twins) == 1


def voting(bundle: tuple[Bundle, list[str]], times: float) -> tuple[Bundle, list[str]]:
    """Label 6 as if training had made nothing more of it than its text, and label 7 as if nothing at all."""
    sums = np.array(bundle[0].sums)
    sums[6], sums[7] = bundle[0].label_texts.texts([bundle[0].labels[6].text])[0], 0.0
    manifest = replace(bundle[0].manifest, addition=Addition(votes=times))
    return replace(bundle[0], sums=sums, manifest=manifest), bundle[1]


def test_votes_for_new_labels_count_more_but_no_more_than_1(bundle: tuple[Bundle, list[str]]) -> None:
    changes = (
        PutLabel("new", "velvet zebra", ("velvet tunnel", bundle[1][0])),
        PutLabel("s3", "steam", ("velvet tunnel",)),
        PutLabel("s6", "river delta", ("velvet tunnel",)),
        Feedback("a walnut", ("s4",), ("new", "s3")),
    )
    plain, more = (one_by_one(Snapshot.of(voting(bundle, times)[0]), *changes) for times in (1.0, 1.5))
    queries = bundle[0].queries.texts(["velvet tunnel", bundle[1][0], "a walnut", "apple pie"])
    wanted = all_votes(plain, queries)
    new = [len(bundle[0].labels)]
    assert more.fresh.tolist() == []
    assert (wanted[:, new] > 2 / 3).any() and ((wanted[:, new] > 0) & (wanted[:, new] < 2 / 3)).any()
    assert (wanted[:, new] < 0).any()
    wanted[:, new] = np.clip(1.5 * wanted[:, new], -1, 1)
    assert np.abs(all_votes(more, queries) - wanted).max() < 1e-6
    twice = re_indexed(re_indexed(more))
    assert twice.fresh.tolist() == new
    assert np.abs(all_votes(twice, queries) - wanted).max() < 1e-5
    # What training knew stays so when it is put after a re-indexing, and what it did not does not.
    later = (PutLabel("s5", "silk", ("velvet tunnel",)), PutLabel("new", "again", ("velvet tunnel",)))
    assert after(twice, *later).fresh.tolist() == new


@pytest.mark.parametrize("seed", range(4))
def test_any_changes_vote_as_the_plain_model_says_also_after_a_re_indexing(
    bundle: tuple[Bundle, list[str]], seed: int
) -> None:
    chooser = random.Random(seed)
    changed = voting(bundle, 2.0)
    snapshot, model = Snapshot.of(changed[0]), Model.of(*changed)
    other = snapshot
    texts, names = [*bundle[1][:8], "velvet", "zebra crossing"], ["s1", "s6", "s7", "s9", "n0", "n1"]
    queries = bundle[0].queries.texts([*texts[:6], "zebra", "apple pie"])
    for step in range(25):
        label, text = chooser.choice(names), chooser.choice(texts)
        kinds: list[LabelChange] = [
            PutLabel(label, chooser.choice(["", "a tunnel"]), tuple(chooser.sample(texts, 2))),
            Feedback(text, (label,), ("s2",)),
            Feedback(text, (), (label,)),
            RemoveExample(text, chooser.choice([label, None])),
            RemoveLabel(label) if step > 18 else Feedback(text, (label, "s1" if label != "s1" else "s9")),
        ]
        what = chooser.choice(kinds)
        snapshot, other = after(snapshot, what), after(other, what)
        model.apply(what)
        if step in (6, 15):
            other = re_indexed(other)
        found = all_votes(snapshot, queries)
        assert np.abs(found - all_votes(other, queries)).max() < 1e-5
        for place, query in enumerate(queries):
            votes = model.votes(query.astype(np.float64))
            wanted = [votes.get(row, 0.0) if row in model.labels else 0.0 for row in range(snapshot.labels.rows)]
            assert found[place] == pytest.approx(wanted, abs=1e-4)
