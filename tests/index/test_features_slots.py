"""Every kind of field, table, probe and slot against the oracle of plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_support import expected, record_values, slots_of
from index.bags import Bags
from index.errors import InputError
from index.feature_spec import FeatureSpec
from index.features import Featurizer
from index.field_spec import FieldSpec
from index.fields import Fields
from index.lexicon import Lexicon

ALL = FeatureSpec(
    rows=5000,
    ngrams=(2, 4),
    fields=(
        FieldSpec("age", "numeric", probes=2, edges=(0.0, 10.5, 1e6)),
        FieldSpec("brand", "categorical"),
        FieldSpec("seen", "history", length=5),
        FieldSpec("tags", probes=3),
        FieldSpec("title", "text", ngrams=(3,), pairs=False, probes=2),
        FieldSpec("watched", "history", tower="query"),
        FieldSpec("year", "numeric", tower="label", edges=(2000.0,)),
    ),
    crosses=(("brand", "age"), ("tags", "brand"), ("age", "tags", "brand"), ("year", "brand")),
)
SPREAD = tuple(np.linspace(0, 5000, len(ALL.namespaces) + 1).astype(int).tolist())
TEXTS = ["hello world hello", "", "größe 日本 Ⅷ 42+1", "a a a a", "one more text that is not so short any more"]
FIELDS: list[Fields | None] = [
    {"age": 10.5, "brand": "acme", "tags": ["x", "y"], "title": "Hello World", "seen": list(range(9)), "watched": "m1"},
    None,
    {"age": "1e400", "brand": 7, "tags": [1, 1.0, "1", True], "seen": ["語", "語"], "title": "a b a"},
    {"age": float("nan"), "brand": None, "tags": [], "seen": []},
    {"age": -0.0, "tags": "x", "brand": "", "watched": ["a", "b", "a"], "title": ""},
]
SPECS = [
    replace(ALL, separate=separate, table=table, probes=probes, parts=SPREAD if table.endswith("split") else ())
    for separate in (False, True)
    for table in ("shared", "split", "quotient", "quotient_split")
    for probes in (1, 2)
]


def check(
    spec: FeatureSpec, tower: str, texts: list[str], fields: list[Fields | None], found: Bags, **how: Any
) -> None:
    assert len(found) == len(texts) and found.slots == len(spec.slot_names)
    for place, (text, said) in enumerate(zip(texts, fields, strict=True)):
        slots, sequences, unseen = expected(spec, tower, text, said, **how)
        rows = slots_of(spec, found, place)
        assert {slot: sorted(bag) for slot, bag in rows.items()} == {slot: sorted(bag) for slot, bag in slots.items()}
        for slot, bag in slots.items():
            assert rows[slot] == pytest.approx(bag, rel=1e-6)
        assert len(found.sequences) == len(spec.histories)
        for history, sequence in zip(spec.histories, found.sequences, strict=True):
            start, stop = sequence.offsets[place : place + 2]
            assert sequence.rows[start:stop].tolist() == sequences[history.name]
        if found.unseen is None:
            assert not how
        else:
            assert found.unseen[place] == unseen


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.table}-{spec.probes}-{spec.separate}")
def test_rows_of_every_slot_are_the_oracles(spec: FeatureSpec) -> None:
    featurizer = Featurizer(spec)
    check(spec, "query", TEXTS, FIELDS, featurizer(TEXTS, FIELDS))
    for text, said in zip(TEXTS, FIELDS, strict=True):
        check(spec, "query", [text], [said], featurizer([text], [said]))
    labels: list[Fields | None] = [
        {"year": 2000, "brand": "x", "title": "T"},
        {"seen": "b"},
        None,
        {"age": 10**400},
        {},
    ]
    check(spec, "label", TEXTS, labels, Featurizer(spec, "label")(TEXTS, labels))


_VALUES = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), st.integers(0, 3), st.booleans())
_RECORD = st.fixed_dictionaries(
    {},
    optional={
        "age": st.one_of(st.none(), st.floats(), st.integers(), st.sampled_from(["1", " 2.5 ", "-inf", "nan", "1e9"])),
        "brand": st.one_of(st.none(), _VALUES),
        "tags": st.one_of(st.none(), _VALUES, st.lists(_VALUES, max_size=4)),
        "title": st.one_of(st.none(), st.text(max_size=12)),
        "seen": st.one_of(st.none(), st.lists(_VALUES, max_size=8)),
        "watched": st.one_of(_VALUES, st.lists(_VALUES, max_size=3)),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), _RECORD)), max_size=6),
    st.integers(0, len(SPECS) - 1),
    st.booleans(),
    st.sampled_from(["keep", "ignore", "ignore_fields"]),
)
def test_any_records_are_the_oracles(
    records: list[tuple[str, Fields | None]], number: int, knows: bool, unseen: str
) -> None:
    spec = replace(SPECS[number], unseen=unseen)
    known = np.random.default_rng(number).random(spec.rows) < 0.7 if knows else None
    texts, fields = [text for text, _ in records], [said for _, said in records]
    how = {} if known is None else {"known": known.tolist()}
    check(spec, "query", texts, fields, Featurizer(spec, known=known)(texts, fields), **how)


@pytest.mark.parametrize("spec", [*SPECS[:3], SPECS[9], SPECS[15]])
def test_values_of_unknown_rows_are_left_out_and_counted_once(spec: FeatureSpec) -> None:
    spec = replace(spec, unseen="ignore")
    known = np.random.default_rng(0).random(spec.rows) < 0.5
    partly = replace(spec, unseen="ignore_fields")
    check(partly, "query", TEXTS, FIELDS, Featurizer(partly, known=known)(TEXTS, FIELDS), known=known.tolist())
    kept = Featurizer(replace(spec, unseen="keep"), known=known)(TEXTS, FIELDS)
    check(replace(spec, unseen="keep"), "query", TEXTS, FIELDS, kept, known=known.tolist())
    found = Featurizer(spec, known=known)(TEXTS, FIELDS)
    check(spec, "query", TEXTS, FIELDS, found, known=known.tolist())
    assert found.unseen is not None and found.unseen.dtype == np.int32 and found.unseen[0] > 0
    assert np.array_equal(kept.unseen, found.unseen) and len(kept.rows) > len(found.rows)  # type: ignore[arg-type]
    everything = Featurizer(spec, known=np.ones(spec.rows, dtype=np.bool_))(TEXTS, FIELDS)
    assert everything.unseen is not None and not everything.unseen.any()
    plain = Featurizer(spec)(TEXTS, FIELDS)
    assert plain.unseen is None
    assert np.array_equal(everything.rows, plain.rows) and np.array_equal(everything.offsets, plain.offsets)
    nothing = Featurizer(spec, known=np.zeros(spec.rows, dtype=np.bool_))(TEXTS, FIELDS)
    # A record of which nothing would be left keeps all it has; it is counted all the same.
    assert np.array_equal(nothing.rows, plain.rows) and np.array_equal(nothing.offsets, plain.offsets)
    for one, whole in zip(nothing.sequences, plain.sequences, strict=True):
        assert np.array_equal(one.rows, whole.rows)
    assert nothing.unseen is not None and (nothing.unseen >= found.unseen).all()
    with pytest.raises(InputError, match="known: there are 5000 rows, 3 were given"):
        Featurizer(spec, known=np.zeros(3, dtype=np.bool_))([""])


def hashes_of(spec: FeatureSpec, tower: str, text: str, said: Fields | None) -> list[tuple[str, int]]:
    values, histories = record_values(spec, tower, text, said)
    return values + [(f"field:{name}", value) for name, found in histories.items() for value in found]


@pytest.mark.parametrize("separate", [False, True])
def test_an_exact_table_has_the_rows_of_its_vocabulary_and_leaves_out_others(separate: bool) -> None:
    half = {value for text, said in zip(TEXTS, FIELDS, strict=True) for _, value in hashes_of(ALL, "query", text, said)}
    vocabulary = sorted(half)[::2]
    lexicon = Lexicon(None, np.array(vocabulary, dtype=np.uint64))
    spec = replace(ALL, table="exact", rows=len(vocabulary), lexicon=lexicon.digest, separate=separate, probes=2)
    found = Featurizer(spec, "query", lexicon)(TEXTS, FIELDS)
    check(spec, "query", TEXTS, FIELDS, found, vocabulary=vocabulary)
    known = np.arange(spec.rows) % 3 > 0
    found = Featurizer(spec, "query", lexicon, known)(TEXTS, FIELDS)
    check(spec, "query", TEXTS, FIELDS, found, vocabulary=vocabulary, known=known.tolist())
    empty = Lexicon(None, np.zeros(0, dtype=np.uint64))
    found = Featurizer(replace(spec, rows=1, lexicon=empty.digest), "query", empty)(TEXTS, FIELDS)
    assert not len(found.rows) and found.unseen is not None and found.unseen[1] == 1


def test_hashes_are_all_values_before_they_have_a_place() -> None:
    for spec in (ALL, replace(ALL, table="split"), replace(ALL, table="exact", separate=True)):
        namespaces, hashes = Featurizer(spec).hashes(TEXTS, FIELDS)
        found = sorted(zip((spec.namespaces[number] for number in namespaces.tolist()), hashes.tolist(), strict=True))
        records = zip(TEXTS, FIELDS, strict=True)
        assert found == sorted(value for text, said in records for value in hashes_of(spec, "query", text, said))
    assert [len(part) for part in Featurizer(FeatureSpec()).hashes([])] == [0, 0]


def test_what_is_not_fitted_is_refused_only_where_it_is_used() -> None:
    for table, fault in (
        ("split", r"features\.parts"),
        ("quotient_split", r"features\.parts"),
        ("exact", "vocabulary"),
    ):
        featurizer = Featurizer(FeatureSpec(table=table))
        with pytest.raises(InputError, match=fault):
            featurizer(["a"])
    with pytest.raises(InputError, match=r"features\.pieces: the pieces are not known"):
        Featurizer(FeatureSpec(pieces=10))(["a"])
    with pytest.raises(InputError, match=r"features\.lexicon: is 'abc', but none was given"):
        Featurizer(FeatureSpec(lexicon="abc"))
    with pytest.raises(InputError, match=r"features\.lexicon: is 'abc', but '' was given"):
        Featurizer(FeatureSpec(lexicon="abc"), "query", Lexicon())


def test_slots_and_namespaces_have_names_and_an_order() -> None:
    small = FeatureSpec(
        pairs=False, probes=2, pieces=5, fields=(FieldSpec("a", "categorical"), FieldSpec("h", "history"),
        FieldSpec("n", "numeric", probes=2), FieldSpec("t", "text", ngrams=())), crosses=(("n", "a"),),
    )  # fmt: skip
    wanted = ("word", "ngram3", "piece", "piece pair", "field:a", "field:h", "field:n", "t:word", "t:pair", "cross:a*n")
    assert small.namespaces == wanted
    assert small.slot_names == ("record",)
    assert replace(small, separate=True).slot_names == (
        "word/0", "word/1", "ngram3/0", "ngram3/1", "piece/0", "piece/1", "piece pair/0", "piece pair/1",
        "field:a", "field:n/0", "field:n/1", "t:word", "t:pair", "cross:a*n/0", "cross:a*n/1",
    )  # fmt: skip
    assert len(replace(small, separate=True, table="quotient").slot_names) == 2 * 9
    assert len(replace(small, separate=True, table="exact").slot_names) == 9


class TwoLetterPieces:
    """A lexicon whose pieces are every two letters of a text."""

    digest, vocabulary = "two", None

    def pieces_of(self, normal: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = [(n, ord(text[i]) * 1000 + ord(text[i + 1])) for n, text in enumerate(normal) for i in
                 range(0, len(text) - 1, 2)]  # fmt: skip
        texts = np.array([text for text, _ in found], dtype=np.int64)
        return texts, np.array([piece for _, piece in found], dtype=np.uint64)


@pytest.mark.parametrize("separate", [False, True])
def test_pieces_and_their_neighbours_are_features(separate: bool) -> None:
    from feature_support import MASK, digest, mix

    spec = FeatureSpec(rows=1 << 30, pieces=9, lexicon="two", ngrams=(), pairs=False, separate=separate)
    lexicon: Any = TwoLetterPieces()
    texts = ["abcd", "", "abab ab", "x", "y", "z"]
    together = Featurizer(spec, "query", lexicon)(texts)
    for place, text in enumerate(texts):
        normal = f" {text} " if text else " "
        pieces = [ord(normal[i]) * 1000 + ord(normal[i + 1]) for i in range(0, len(normal) - 1, 2)]
        pairs = [(mix(one) * 3 + two) & MASK for one, two in pairwise(pieces)]
        wanted = {mix(value ^ digest("0:piece")) % spec.rows for value in pieces}
        wanted |= {mix(value ^ digest("0:piece pair")) % spec.rows for value in pairs}
        for found in (slots_of(spec, together, place), slots_of(spec, Featurizer(spec, "query", lexicon)([text]), 0)):
            words = expected(replace(spec, pieces=0), "query", text, None)[0]
            rows = {row for bag in found.values() for row in bag}
            assert rows - {row for bag in words.values() for row in bag} == wanted
            assert not separate or set(found) <= {"word", "piece", "piece pair"}
