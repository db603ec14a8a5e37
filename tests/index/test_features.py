"""The featurizer against a slow one written from its description, and against fixed rows."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.bags import Bags, stack_bags
from index.errors import InputError
from index.features import FeatureSpec, Featurizer, normalise
from index.field_spec import parse_fields
from index.fields import Fields

SPEC = FeatureSpec(rows=1 << 16, ngrams=(3, 5))
GOLDEN_HELLO = [
    1475,
    1971,
    3042,
    6258,
    11434,
    11914,
    17362,
    20005,
    27605,
    43985,
    45934,
    49812,
    53109,
    58851,
    59241,
    60130,
    61256,
    62766,
    63582,
]
GOLDEN_MIXED = [
    2938,
    4402,
    4741,
    5667,
    7232,
    10639,
    12552,
    18781,
    19318,
    23165,
    25971,
    26456,
    28698,
    37462,
    41194,
    41516,
    45225,
    45472,
    55249,
    60557,
    62135,
]


def as_dicts(bags: Bags) -> list[dict[int, float]]:
    return [
        dict(zip(bags.rows[start:stop].tolist(), bags.weights[start:stop].tolist(), strict=True))
        for start, stop in zip(bags.offsets[:-1], bags.offsets[1:], strict=True)
    ]


def feature_count(text: str, spec: FeatureSpec) -> int:
    """How many different words, pairs and n-grams a text has, counted as strings."""
    tokens = re.findall(r"[^\W\d_]+|\d+|[+#]", unicodedata.normalize("NFKC", text[: spec.characters]).lower())
    found: Counter[tuple[str, str]] = Counter(("word", token) for token in tokens)
    found.update(("pair", f"{one} {two}") for one, two in pairwise(tokens))
    for n in spec.ngrams:
        for token in tokens:
            whole = f" {token} "
            found.update((f"n{n}", whole[place : place + n]) for place in range(len(whole) - n + 1))
    return len(found)


@given(st.text(max_size=60))
def test_finds_as_many_features_as_counting_strings(text: str) -> None:
    spec = FeatureSpec(rows=1 << 30, ngrams=(3, 4))
    assert int(Featurizer(spec)([text]).lengths[0]) == feature_count(text, spec)


def test_a_feature_said_n_times_weighs_one_plus_log_n() -> None:
    spec = FeatureSpec(rows=1 << 30, ngrams=(), pairs=False)
    once, thrice = as_dicts(Featurizer(spec)(["a b", "a b a a"]))
    (a,) = [row for row, weight in thrice.items() if weight != 1.0]
    assert thrice[a] == pytest.approx(1 + math.log(3))
    assert set(once) == set(thrice)


def test_rows_are_the_same_on_every_machine() -> None:
    golden = {"hello world": GOLDEN_HELLO, "größe 日本 Ⅷ": GOLDEN_MIXED}
    for text, rows in golden.items():
        assert Featurizer(SPEC)([text]).rows.tolist() == rows


def test_rows_are_the_same_in_another_process() -> None:
    code = (
        "from index.features import *; "
        "print(Featurizer(FeatureSpec(rows=1<<16, ngrams=(3, 5)))(['hello world']).rows.tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(Featurizer(SPEC)(["hello world"]).rows.tolist())


@given(st.lists(st.text(max_size=30), max_size=8))
def test_a_text_has_the_same_features_alone_and_among_others(texts: list[str]) -> None:
    together = as_dicts(Featurizer(SPEC)(texts))
    assert together == [as_dicts(Featurizer(SPEC)([text]))[0] for text in texts]


def test_many_texts_are_the_same_as_few() -> None:
    texts = [f"text number {number} of many" for number in range(1200)]
    assert as_dicts(Featurizer(SPEC)(texts))[1100] == as_dicts(Featurizer(SPEC)(texts[1100:1101]))[0]


@pytest.mark.parametrize("text", ["", "   ", "!?—…", "\x00\x00", "\ud800", "😀"])
def test_a_text_without_words_has_no_features(text: str) -> None:
    assert Featurizer(SPEC)([text]).lengths.tolist() == [0]


def test_no_texts_are_no_bags() -> None:
    bags = Featurizer(SPEC)([])
    assert len(bags) == 0
    assert bags.offsets.tolist() == [0]


def test_reads_any_script_and_folds_case_width_and_ligatures() -> None:
    assert normalise("ＡＢＣ ﬁne Ⅷ", 100) == " abc fine viii "
    assert normalise("C++11 日本語/料理 größe", 100) == " c + + 11 日本語 料理 größe "
    for text in ("日本 料理", "Ελλάδα", "שלום עולם", "हिन्दी"):
        assert Featurizer(SPEC)([text]).lengths[0] > 0


def test_reads_no_more_of_a_text_than_it_is_told() -> None:
    spec = FeatureSpec(rows=1 << 16, characters=10)
    assert as_dicts(Featurizer(spec)(["abcd efgh " + "x" * 10_000_000])) == as_dicts(Featurizer(spec)(["abcd efgh "]))


def test_the_namespaces_do_not_mix() -> None:
    words = Featurizer(FeatureSpec(rows=1 << 30, ngrams=(), pairs=False))(["abc def"]).rows
    with_pairs = Featurizer(FeatureSpec(rows=1 << 30, ngrams=()))(["abc def"]).rows
    everything = Featurizer(FeatureSpec(rows=1 << 30, ngrams=(3,)))(["abc def"]).rows
    assert len(words) == 2
    assert set(words) < set(with_pairs) < set(everything)


def test_another_seed_gives_other_rows() -> None:
    other = FeatureSpec(rows=1 << 30, ngrams=(3,), seed=1)
    mine = FeatureSpec(rows=1 << 30, ngrams=(3,))
    assert not set(Featurizer(other)(["hello"]).rows) & set(Featurizer(mine)(["hello"]).rows)


def test_taking_and_stacking_keep_every_bag() -> None:
    bags = Featurizer(SPEC)(["one two", "", "three", "one"])
    taken = bags.take(np.array([2, 0, 1], dtype=np.int64))
    whole = as_dicts(bags)
    assert as_dicts(taken) == [whole[2], whole[0], whole[1]]
    assert as_dicts(stack_bags(bags, taken)) == [*whole, whole[2], whole[0], whole[1]]


def test_padding_has_no_weight() -> None:
    bags = Featurizer(SPEC)(["one", "", "one two three"])
    rows, weights = bags.padded(int(bags.lengths.max()))
    assert rows.shape == weights.shape == (3, int(bags.lengths.max()))
    for place, bag in enumerate(as_dicts(bags)):
        assert weights[place].sum() == pytest.approx(sum(bag.values()))
        assert set(rows[place][weights[place] > 0]) == set(bag)


def test_rows_spread_evenly_over_the_table() -> None:
    bags = Featurizer(FeatureSpec(rows=64, ngrams=(), pairs=False))([str(n) for n in range(6400)])
    counts = np.bincount(bags.rows, minlength=64)
    # Chi-square with 63 degrees of freedom: a fair spread exceeds 110 about once in 4,000 tables.
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 110


def test_a_spec_survives_json_and_refuses_nonsense() -> None:
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(InputError, match="version 99"):
        FeatureSpec(version=99)
    with pytest.raises(InputError, match="rows"):
        FeatureSpec(rows=0)
    with pytest.raises(InputError, match="n-grams"):
        FeatureSpec(ngrams=(1,))


def digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def row_of_value(spec: FeatureSpec, name: str, value: str) -> int:
    """SplitMix64's finaliser by plain integers over the value's digest under its field's salt."""
    mask = (1 << 64) - 1
    mixed = ((digest(value) ^ digest(f"{spec.seed}:field:{name}")) + 0x9E3779B97F4A7C15) & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return (mixed ^ (mixed >> 31)) % spec.rows


FIELDED = FeatureSpec(rows=1 << 20, fields=parse_fields(["type", "year", "tags"]))


def test_fields_add_their_rows_to_the_bag_of_the_text() -> None:
    texts = ["hello world", "", "größe 日本", "hello world"]
    fields: list[Fields | None] = [
        {"type": "book", "year": 1999, "tags": ["a", "語", "a"]},
        {"type": "book"},
        None,
        {"tags": [], "year": None},
    ]
    pairs = [[("type", "book"), ("year", "1999"), ("tags", "a"), ("tags", "語")], [("type", "book")], [], []]
    plain = FeatureSpec(rows=1 << 20)
    wanted = as_dicts(Featurizer(plain)(texts))
    for bag, said in zip(wanted, pairs, strict=True):
        bag |= {row_of_value(FIELDED, name, value): 1.0 for name, value in said}
    found = Featurizer(FIELDED)(texts, fields)
    assert as_dicts(found) == wanted
    assert all(np.all(np.diff(found.rows[start:stop]) > 0) for start, stop in pairwise(found.offsets.tolist()))
    assert as_dicts(Featurizer(FIELDED)(texts)) == as_dicts(Featurizer(plain)(texts))


def test_a_row_that_text_and_field_share_counts_both() -> None:
    spec = FeatureSpec(rows=1, fields=parse_fields(["a", "b"]), ngrams=(), pairs=False)
    assert as_dicts(Featurizer(spec)(["one two"], [{"a": "x", "b": ["x", "y"]}])) == [
        {0: pytest.approx(1 + math.log(5))}
    ]


def test_one_value_in_two_fields_is_two_features_in_whatever_order_they_are_named() -> None:
    one, other = (FeatureSpec(rows=1 << 30, fields=parse_fields(names)) for names in (["a", "b"], ["b", "a"]))
    assert one == other
    bags = Featurizer(one)(["", ""], [{"a": "x", "b": "x"}, {"b": "x", "a": "x"}])
    assert bags.lengths.tolist() == [2, 2]
    assert bags.rows[:2].tolist() == bags.rows[2:].tolist()
    assert row_of_value(one, "a", "x") in bags.rows


def test_many_records_have_the_same_fields_as_few() -> None:
    fields = [{"year": number} for number in range(1200)]
    together = Featurizer(FIELDED)([""] * 1200, fields)
    assert together.rows.tolist() == [row_of_value(FIELDED, "year", str(number)) for number in range(1200)]
    with pytest.raises(InputError, match="field 'colour' is not read"):
        Featurizer(FIELDED)(["a"], [{"colour": "red"}])


def test_a_spec_without_fields_is_written_as_before_there_were_any() -> None:
    first = {"rows": 1 << 18, "ngrams": (3,), "pairs": True, "characters": 4000, "seed": 0, "version": 1}
    assert FeatureSpec().to_json() == first
    assert FeatureSpec.from_json(first) == FeatureSpec()
    assert FIELDED.to_json()["fields"] == ["tags", "type", "year"]
    assert FeatureSpec.from_json(json.loads(json.dumps(FIELDED.to_json()))) == FIELDED
    with pytest.raises(InputError, match=r"features\.fields: has a name twice"):
        FeatureSpec(fields=parse_fields(["a", "a"]))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"table": "hash"}, r"features\.table: must be one of shared, split"),
        ({"table": "quotient", "rows": 1}, r"features\.rows: a table of quotients"),
        ({"unseen": "drop"}, r"features\.unseen: must be one of ignore_fields, ignore, keep, is"),
        ({"probes": 9}, "probes must be 1 to 8"),
        ({"pieces": -1}, "pieces at least 0"),
        ({"crosses": (("a",),)}, r"features\.crosses: \['a'\] must be two or more different fields"),
        ({"crosses": (("a", "a"),)}, r"features\.crosses"),
        ({"crosses": (("a", "h"),)}, r"features\.crosses"),
        ({"crosses": (("a", "nope"),)}, r"features\.crosses"),
        ({"crosses": (("q", "l"),)}, r"features\.crosses: \['l', 'q'\] are fields of different towers"),
        ({"table": "split", "parts": (0, 5)}, r"features\.parts: must be 8 ascending row numbers, are \[0, 5\]"),
        ({"table": "split", "parts": (0, 1, 2, 3, 4, 5, 6, 300_000)}, r"features\.parts: end at row 300000"),
        ({"table": "split", "parts": (0, 1, 2, 2, 4, 5, 6, 7)}, r"features\.parts"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_name(settings: dict[str, Any], fault: str) -> None:
    fields = parse_fields(
        ["a", {"name": "h", "kind": "history"}, {"name": "q", "tower": "query"}, {"name": "l", "tower": "label"}]
    )
    with pytest.raises(InputError, match=fault):
        FeatureSpec(**{"fields": fields, **settings})


def test_a_whole_spec_survives_json() -> None:
    fields = {"n": {"kind": "numeric", "edges": [0, 1.5], "probes": 2}, "c": {"kind": "categorical"}, "m": {}}
    spec = FeatureSpec(
        fields=parse_fields(fields), crosses=(("n", "c"), ("c", "n"), ("m", "c")), separate=True, table="split",
        parts=(0, 1, 2, 3, 4, 5, 6, 7, 8), unseen="ignore", pieces=0, lexicon="", probes=2,
    )  # fmt: skip
    assert spec.crosses == (("c", "m"), ("c", "n"))
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
