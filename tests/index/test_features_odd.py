"""Inputs that hardly anyone sends: each has a defined answer, in bounded time."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from feature_support import expected, slots_of
from index.errors import InputError
from index.feature_spec import FeatureSpec
from index.features import Featurizer
from index.field_spec import FieldSpec
from index.word_cells import WordMemory

SPEC = FeatureSpec(
    rows=1 << 16,
    fields=(
        FieldSpec("h", "history", length=1000),
        FieldSpec("n", "numeric", edges=(-1.0, 0.0, 1.0)),
        FieldSpec("q", tower="query"),
        FieldSpec("t", "text"),
        FieldSpec("tags"),
        FieldSpec("to", "categorical", tower="label"),
    ),
    crosses=(("q", "tags"),),
)


ODD = (
    "", " ", "😀👩‍👩‍👧", "\U0003ffff\ue000", "שלום עולם", "مرحبا 123", "\ud800", "\x00a\x00", "ﷺ" * 300, "a" * 3000,
    "ﬁ" * 999,
)  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_texts_are_the_oracles(text: str) -> None:
    for texts in ([text], [text] * 6):
        found = Featurizer(SPEC)(texts)
        wanted = expected(SPEC, "query", text, None)[0]
        for place in range(len(texts)):
            assert slots_of(SPEC, found, place) == {slot: pytest.approx(bag) for slot, bag in wanted.items()}


def test_ten_megabytes_of_one_character_are_read_as_far_as_the_spec_says() -> None:
    featurizer = Featurizer(SPEC)
    long = "a" * 10_000_000
    tracemalloc.start()
    began = time.perf_counter()
    found = featurizer([long], [{"t": long}])
    elapsed = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 1 and peak < 20_000_000
    wanted = expected(SPEC, "query", long, {"t": long[:4000]})[0]
    assert sorted(slots_of(SPEC, found, 0)["record"]) == sorted(wanted["record"])


@pytest.mark.parametrize(
    ("value", "same"),
    [(-0.0, 0), ("0", 0.0), ("1e400", 1), (float("inf"), 10**400), (-(10**400), "-inf"), (" 0.5 ", 0.5), ("nan", None),
     (float("nan"), None), ("-1", -1), ("1E0", 1), ("٣", 3)],
)  # fmt: skip
def test_numbers_that_are_the_same_have_the_same_bin(value: object, same: object) -> None:
    one, other = (Featurizer(SPEC)([""], [{"n": number}]).rows.tolist() for number in (value, same))
    assert one == other and len(one) == 1
    if same is None:
        assert one == Featurizer(SPEC)([""]).rows.tolist() == Featurizer(SPEC)([""], [{}]).rows.tolist()


def test_bins_are_closed_below_and_infinite_numbers_are_in_the_outermost() -> None:
    numbers = [-np.inf, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, np.inf, None]
    rows = [int(Featurizer(SPEC)([""], [{"n": number}]).rows[0]) for number in numbers]
    assert [rows.index(row) for row in rows] == [0, 0, 2, 2, 4, 4, 6, 6, 6, 9]
    unfitted = Featurizer(FeatureSpec(fields=(FieldSpec("n", "numeric"),)))
    one, other, missing = unfitted([""] * 3, [{"n": 1}, {"n": -9}, None]).rows.tolist()
    assert one == other != missing


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"n": "x"}, r"field 'n' must be a number, or a string that is one, or null; is 'x'"),
        ({"n": True}, r"field 'n' must be a number.*; is true or false"),
        ({"n": [1]}, r"field 'n' must be a number.*; is a list"),
        ({"n": ""}, r"field 'n' must be a number.*; is ''"),
        ({"n": "1_000"}, r"field 'n' must be a number"),
        ({"n": {}}, r"field 'n' must be a number.*; is an object"),
        ({"tags": ["a"] * 100_000}, r"field 'tags' has 100000 values; at most 1000 are taken"),
        ({"tags": [["a"]]}, r"field 'tags' must be .*; has a list"),
        ({"tags": "\ud800"}, r"field 'tags' is not valid Unicode"),
        ({"tags": float("inf")}, r"field 'tags' is inf"),
        ({"tags": 10**5000}, r"field 'tags' is a number of too many digits; give a string"),
        ({"h": [1, None]}, r"field 'h' must be .*; has null"),
        ({"h": ["a", "\udfff"]}, r"field 'h' is not valid Unicode"),
        ({"t": ["a"]}, r"field 't' is text and has a list of 1 values; give one string"),
        ({"to": "x"}, r"field 'to' is read of labels, not of queries; leave it out"),
        ({"nope": "x"}, r"field 'nope' is not read by this model \(it reads h, n, q, t, tags, to\)"),
        ({"q": [*range(40)], "tags": [*range(40)]}, r"fields 'q', 'tags' have 1600 combinations .* at most 1000"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_by_name(fields: dict[str, Any], fault: str) -> None:
    for count in (1, 9):
        with pytest.raises(InputError, match=fault):
            Featurizer(SPEC)([""] * count, [None] * (count - 1) + [fields])


def test_a_label_is_refused_what_only_queries_have() -> None:
    labels = Featurizer(SPEC, "label")
    with pytest.raises(InputError, match="field 'q' is read of queries, not of labels"):
        labels([""], [{"q": "x"}])
    with pytest.raises(InputError, match=r"field 'to' is categorical and has a list of 2 values; .*\"multivalent\""):
        labels([""], [{"to": ["x", "y"]}])
    with pytest.raises(InputError, match="field 'to' is categorical and has a list of 0 values"):
        labels([""], [{"to": []}])
    assert len(labels([""], [{"to": "x"}]).rows) == 2


def test_a_history_keeps_its_newest_values_in_order() -> None:
    values = [f"item {number % 5000}" for number in range(100_000)]
    (history,) = Featurizer(SPEC)(["", ""], [{"h": values}, None]).sequences
    assert history.lengths.tolist() == [1000, 0]
    wanted = expected(SPEC, "query", "", {"h": values})[1]["h"]
    assert history.rows.tolist() == wanted
    assert history.padded(1001)[1].sum() == 1000


def test_no_records_have_no_bags_but_all_sequences() -> None:
    found = Featurizer(SPEC)([], [])
    assert len(found) == 0 and [len(one) for one in found.sequences] == [0]


def test_words_are_forgotten_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.word_cells._KEPT", 3)
    featurizer = Featurizer(SPEC)
    texts = ["one two three", "four one five two six", "one", "x" * 100]
    for text in texts * 2:
        wanted = expected(SPEC, "query", text, None)[0]["record"]
        assert slots_of(SPEC, featurizer([text]), 0)["record"] == pytest.approx(wanted)
    assert isinstance(featurizer._words, WordMemory) and len(featurizer._words._kept) <= 5
