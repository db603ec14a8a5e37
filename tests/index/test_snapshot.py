"""The state of a served model against a plain model of it, through any changes, whole blocks and one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.bundle import Bundle
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.encoder import Encoder
from index.label_filter import LabelFilter
from index.snapshot import Snapshot
from snapshot_support import Model, after, one_by_one, re_indexed, remembering, unit

WORDS = ("zebra", "saffron", "tunnel", "velvet", "umbrella", "walnut", "harbour", "apple pie", "日本", "größe")
QUERIES = ("apple pie today", "the velvet tunnel", "zebra", "notes on steam engine and river delta")


@pytest.fixture(scope="module")
def bundle(tiny_collection: Path, tiny_corpus: Path) -> tuple[Bundle, list[str]]:
    return remembering(tiny_collection, tiny_corpus)


def some_change(chooser: random.Random, texts: list[str]) -> LabelChange:
    label = chooser.choice([*(f"s{number}" for number in range(0, 40, 5)), *(f"n{number}" for number in range(5))])
    other = chooser.choice(["s1", "s5", "n1", "n2", "nobody"])
    text = chooser.choice([" ".join(chooser.sample(WORDS, 2)), "velvet zebra", texts[chooser.randrange(6)]])
    examples = tuple(chooser.sample(WORDS, chooser.randrange(3)))
    kinds: list[LabelChange] = [
        PutLabel(label, text, examples, fields={"lang": chooser.choice(["de", "en"]), "n": [1, "1"]}),
        PutLabel(label, "", ("velvet zebra", *examples)),
        PutLabel(label, text, examples, tuple(chooser.uniform(-1, 1) for _ in range(32))),
        RemoveLabel(label),
        Feedback(text, (label,), (other,) if other != label else ()),
        Feedback(text, (label, other)),
        Feedback(text, (), (label,)),
        RemoveExample(text, label),
        RemoveExample(text),
        RemoveExample(text, other),
    ]
    return chooser.choice(kinds)


def assert_agrees(snapshot: Snapshot, model: Model) -> None:
    assert {row: label.id for row, label in snapshot.labels.after(None)} == {
        row: name for name, row in model.ids.items()
    }
    rows, vectors = np.array(sorted(model.labels), dtype=np.int64), model.vectors()
    wanted = np.stack([vectors[int(row)] for row in rows])
    assert np.abs(snapshot.vectors(rows) - wanted).max() < 2e-5
    queries = snapshot.bundle.queries.texts(QUERIES)
    for only in (None, {"lang": "de"}, {"lang": ["de", "en"], "n": "1"}, {"lang": "fr"}):
        found = snapshot.rank(queries, 60, None if only is None else LabelFilter.parse(only))
        for place, query in enumerate(queries):
            ranked = model.ranked(query, vectors, only)
            scores = dict(ranked)
            own = [row for row in found.rows[place].tolist() if row >= 0]
            assert sorted(own) == sorted(scores)
            assert found.scores[place][: len(own)] == pytest.approx([scores[row] for row in own], abs=2e-4)
            assert found.scores[place][: len(own)] == pytest.approx([score for _, score in ranked], abs=2e-4)


@pytest.mark.parametrize("seed", range(4))
def test_any_changes_come_to_what_the_plain_model_says(bundle: tuple[Bundle, list[str]], seed: int) -> None:
    chooser = random.Random(seed)
    snapshot, model = Snapshot.of(bundle[0]), Model.of(*bundle)
    for _ in range(8):
        block = [some_change(chooser, bundle[1]) for _ in range(chooser.randrange(1, 8))]
        snapshot = after(snapshot, *block)
        for what in block:
            model.apply(what)
        assert_agrees(snapshot, model)


@pytest.mark.parametrize("seed", range(4))
def test_a_block_comes_to_the_same_as_its_changes_one_by_one(bundle: tuple[Bundle, list[str]], seed: int) -> None:
    chooser = random.Random(100 + seed)
    changes = [some_change(chooser, bundle[1]) for _ in range(40)]
    start = Snapshot.of(bundle[0])
    whole, single = after(start, *changes), one_by_one(start, *changes)
    assert whole.labels.rows == single.labels.rows and whole.change == single.change == 40
    assert whole.removed.tolist() == single.removed.tolist()
    assert whole.shown_examples()[whole.shown_examples() < len(bundle[1])].tolist() == [
        row for row in single.shown_examples().tolist() if row < len(bundle[1])
    ]
    assert whole.memory is not None and single.memory is not None
    assert len(whole.memory) == len(single.memory) == len(whole.shown_examples())
    one, other = whole.predict(QUERIES, 60), single.predict(QUERIES, 60)
    assert np.allclose(np.where(one.rows < 0, 0, one.scores), np.where(other.rows < 0, 0, other.scores), atol=1e-5)


def assert_same(one: Snapshot, other: Snapshot) -> None:
    """Vectors, rankings and scores bit for bit."""
    assert {row: label for row, label in one.labels.after(None)} == {
        row: label for row, label in other.labels.after(None)
    }
    rows = np.array([row for row, _ in one.labels.after(None)], dtype=np.int64)
    assert np.array_equal(one.vectors(rows), other.vectors(rows))
    for only in (None, LabelFilter.parse({"lang": "de"})):
        first, second = one.predict(QUERIES, 60, only=only), other.predict(QUERIES, 60, only=only)
        assert np.array_equal(first.rows, second.rows)
        assert np.array_equal(first.scores, second.scores)
    assert one.memory is not None and other.memory is not None and len(one.memory) == len(other.memory)


BEFORE: tuple[LabelChange, ...] = (
    PutLabel("new", "zebra crossing", ("velvet zebra", "saffron tunnel"), fields={"lang": "de"}),
    PutLabel("other", "", ("walnut harbour",), fields={"lang": ["de", "en"]}),
    Feedback("a walnut umbrella", ("new", "s3"), ("s4",)),
)


@pytest.mark.parametrize(
    ("added", "removals"),
    [
        ([Feedback("violet lantern", ("new",))], [RemoveExample("violet lantern", "new")]),
        ([Feedback("violet lantern", ("new", "s3", "s7"), ("s4",))], [RemoveExample("violet lantern")]),
        (
            [Feedback("violet lantern", ("new", "s3"))],
            [RemoveExample("violet lantern", "s3"), RemoveExample("violet lantern", "new")],
        ),
        (
            [Feedback("violet lantern", ("s9",)), Feedback("violet lantern", (), ("s9",))],
            [RemoveExample("violet lantern", "s9")],
        ),
        ([Feedback("", ("new",), fields=None)], [RemoveExample("")]),
        ([PutLabel("gone", "x", ("velvet zebra", "violet lantern"))], [RemoveLabel("gone")]),
        ([Feedback("violet lantern", ("s11",))] * 3, [RemoveExample("violet lantern", "s11")]),
    ],
)
def test_what_is_added_and_removed_again_leaves_no_trace(
    bundle: tuple[Bundle, list[str]], added: list[LabelChange], removals: list[LabelChange]
) -> None:
    start = one_by_one(Snapshot.of(bundle[0]), *BEFORE)
    assert_same(one_by_one(start, *added, *removals), start)
    # Also where something else came between, and in one block.
    later = Feedback("copper kettle on a stone bridge", ("new", "s9"))
    assert_same(one_by_one(start, *added, later, *removals), one_by_one(start, later))
    assert_same(after(start, *added, *removals), start)


def test_an_example_of_two_labels_stays_for_the_other(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(bundle[0])
    both = one_by_one(start, PutLabel("a", "aa"), PutLabel("b", "bb"), Feedback("violet lantern", ("a", "b")))
    only = one_by_one(start, PutLabel("a", "aa"), PutLabel("b", "bb"), Feedback("violet lantern", ("b",)))
    assert_same(one_by_one(both, RemoveExample("violet lantern", "a")), only)
    removed = one_by_one(both, RemoveLabel("a"))
    assert_same(removed, one_by_one(only, RemoveLabel("a")))
    assert removed.example_labels.of(np.array([len(bundle[1])]))[1].tolist() == [41]


def test_a_put_forgets_what_was_said_of_the_label_before(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(bundle[0])
    put = PutLabel("s3", "garden soil", ("velvet zebra",))
    told = one_by_one(start, Feedback("violet lantern", ("s3", "s4")), Feedback("walnut", (), ("s3",)), put)
    assert_same(told, one_by_one(start, Feedback("violet lantern", ("s4",)), put))


def test_a_trained_label_without_its_last_added_example_is_where_training_left_it(
    bundle: tuple[Bundle, list[str]],
) -> None:
    start = Snapshot.of(bundle[0])
    told = one_by_one(start, Feedback("violet lantern", ("s3",)))
    assert told.index.delta_rows.tolist() == [3]
    examples = bundle[0].queries.texts(["violet lantern"])[0].astype(np.float64)
    wanted = unit(bundle[0].sums[3].astype(np.float64) + 0.5 * examples)
    assert np.abs(told.vectors(np.array([3]))[0] - wanted).max() < 1e-5
    assert one_by_one(told, RemoveExample("violet lantern")).index.delta_rows.tolist() == []


def test_a_training_example_can_be_taken_from_one_label_or_from_all(bundle: tuple[Bundle, list[str]]) -> None:
    start, lists = Snapshot.of(bundle[0]), bundle[0].example_labels
    place = next(
        place for place in range(len(lists)) if len(lists[place]) == 2 and bundle[1].count(bundle[1][place]) == 1
    )
    first, second = (bundle[0].labels[int(row)].id for row in lists[place])
    text, query = bundle[1][place], bundle[0].queries.texts([bundle[1][place]])
    one = after(start, RemoveExample(text, first))
    assert one.example_labels.of(np.array([place]))[1].tolist() == [lists[place][1]]
    assert start.memory is not None and one.memory is not None and len(one.memory) == len(start.memory)
    none = after(one, RemoveExample(text, second))
    assert none.memory is not None and len(none.memory) == len(start.memory) - 1
    assert place not in none.memory.search(query, 5).rows and place in start.memory.search(query, 5).rows
    assert place not in none.shown_examples() and place in one.shown_examples()
    assert_same(after(start, RemoveExample(text)), none)
    # What training made of it stays: its label has the vector that it had.
    rows = np.array(lists[place], dtype=np.int64)
    assert np.array_equal(none.vectors(rows), start.vectors(rows))


def test_examples_whose_labels_are_all_removed_vote_no_more(bundle: tuple[Bundle, list[str]]) -> None:
    start, lists = Snapshot.of(bundle[0]), bundle[0].example_labels
    removed = after(start, RemoveLabel("s0"), RemoveLabel("s7"))
    left = [place for place in range(len(lists)) if set(lists[place].tolist()) - {0, 7}]
    assert removed.memory is not None and len(removed.memory) == len(left)
    assert removed.shown_examples().tolist() == left
    assert_same(one_by_one(start, RemoveLabel("s7"), RemoveLabel("s0")), removed)


def test_votes_against_a_label_lower_its_score_to_no_less_than_0(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(bundle[0])
    before = start.predict(["apple pie"], 40)
    told = after(start, *(Feedback(text, (), ("s0",)) for text in ("apple pie", "apple pie a", "an apple pie")))
    now = told.predict(["apple pie"], 40)
    scores = dict(zip(now.rows[0].tolist(), now.scores[0].tolist(), strict=True))
    assert scores[0] < before.scores[0, 0]
    assert min(scores.values()) >= 0.0
    lonely = replace(told, index=told.index.hide([0]))
    assert 0 not in lonely.predict(["apple pie"], 40).rows


def test_a_filter_changes_no_score(bundle: tuple[Bundle, list[str]]) -> None:
    snapshot = one_by_one(Snapshot.of(bundle[0]), *BEFORE, PutLabel("s5", "violin string", fields={"lang": "de"}))
    every = snapshot.predict(QUERIES, 60)
    shown = snapshot.predict(QUERIES, 60, only=LabelFilter.parse({"lang": "de"}))
    wanted = {5, 40, 41}
    for place in range(len(QUERIES)):
        kept = [
            pair
            for pair in zip(every.rows[place].tolist(), every.scores[place].tolist(), strict=True)
            if pair[0] in wanted
        ]
        found = list(zip(shown.rows[place].tolist(), shown.scores[place].tolist(), strict=True))[: len(kept)]
        assert [row for row, _ in found] == [row for row, _ in kept]
        assert [score for _, score in found] == pytest.approx([score for _, score in kept], abs=1e-6)
        assert (shown.rows[place][len(kept) :] == -1).all()
    assert (snapshot.predict(QUERIES, 3, only=LabelFilter.parse({"lang": "xx"})).rows == -1).all()
    same = snapshot.predict(QUERIES, 60, only=LabelFilter.parse({}))
    assert np.array_equal(same.rows, every.rows) and np.array_equal(same.scores, every.scores)


def test_feedback_for_labels_that_are_not_there_is_passed_over(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(bundle[0])
    told = after(
        start, Feedback("violet lantern", ("nobody",), ("none",)), RemoveExample("x", "nobody"), RemoveLabel("no")
    )
    assert told.change == 3
    assert_same(told, start)
    assert len(told.examples.keys) == 0


def test_an_old_snapshot_stays_what_it_was(bundle: tuple[Bundle, list[str]]) -> None:
    start = one_by_one(Snapshot.of(bundle[0]), *BEFORE)
    before = start.predict(QUERIES, 60)
    chooser = random.Random(7)
    for _ in range(5):
        one_by_one(start, *(some_change(chooser, bundle[1]) for _ in range(5)))
    now = start.predict(QUERIES, 60)
    assert np.array_equal(before.rows, now.rows) and np.array_equal(before.scores, now.scores)
    assert len(start.labels) == 42


def test_without_a_memory_feedback_changes_the_vector_alone(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(replace(bundle[0], memory=None))
    told = after(start, Feedback("violet lantern", ("s3",), ("s4",)), RemoveExample(bundle[1][0]))
    assert told.memory is None and told.votes(bundle[0].queries.texts(["x"])) is None
    asked = bundle[0].queries.texts(["violet lantern"])[0]
    moved, still = ((told.vectors(np.array([row])) - start.vectors(np.array([row]))) @ asked for row in (3, 4))
    assert moved[0] > 0.1 and still[0] == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_a_re_indexed_bundle_goes_on_as_if_nothing_had_happened(bundle: tuple[Bundle, list[str]], seed: int) -> None:
    chooser = random.Random(200 + seed)
    start = Snapshot.of(bundle[0])
    changes = [some_change(chooser, bundle[1]) for _ in range(60)]
    keeping = [what for what in changes if not isinstance(what, RemoveLabel)]
    before, later = keeping[:20], changes[20:]
    plain = one_by_one(start, *before)
    other = re_indexed(re_indexed(plain))
    for what in [None, *later]:
        if what is not None:
            plain, other = after(plain, what), after(other, what)
        assert {row: label for row, label in plain.labels.after(None)} == {
            row: label for row, label in other.labels.after(None)
        }
        rows = np.array([row for row, _ in plain.labels.after(None)], dtype=np.int64)
        assert np.abs(plain.vectors(rows) - other.vectors(rows)).max() < 1e-6
        for only in (None, LabelFilter.parse({"lang": "de"})):
            one, two = plain.predict(QUERIES, 60, only=only), other.predict(QUERIES, 60, only=only)
            assert np.allclose(np.maximum(one.scores, 0), np.maximum(two.scores, 0), atol=1e-5)
            assert [set(row) for row in one.rows.tolist()] == [set(row) for row in two.rows.tolist()]
    assert len(plain.shown_examples()) == len(other.shown_examples())


def test_only_what_is_there_in_the_end_is_encoded_and_all_of_it_at_once(
    bundle: tuple[Bundle, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, read, asked = Snapshot.of(bundle[0]), Encoder.texts, list[list[str]]()

    def counted(self: Encoder, texts: Sequence[str], fields: object = None) -> NDArray[np.float32]:
        asked.append(sorted(texts))
        return read(self, texts)

    monkeypatch.setattr(Encoder, "texts", counted)
    puts = [PutLabel(f"n{number % 30}", f"text {number}", (f"example {number}",)) for number in range(300)]
    last = RemoveLabel("n29"), Feedback("violet lantern", ("n0", "n1")), Feedback("walnut", ("n29",))
    after(start, *puts, *last)
    wanted = sorted(f"example {number}" for number in range(270, 299))
    assert asked == [[*wanted, "violet lantern"], sorted(f"text {number}" for number in range(270, 299))]


def test_nothing_changes_by_no_changes_and_no_queries_find_nothing(bundle: tuple[Bundle, list[str]]) -> None:
    start = Snapshot.of(bundle[0])
    assert start.after([]) is start
    none = np.zeros((0, 32), dtype=np.float32)
    assert start.rank(none, 3).rows.shape == (0, 3)
    assert start.rank(none, 3, LabelFilter.parse({"a": 1})).rows.shape == (0, 3)
