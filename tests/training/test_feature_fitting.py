"""What is fitted to a corpus, against plain loops: edges, parts, pieces, exact vocabularies; and fitting twice."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from index.errors import InputError
from index.feature_spec import FeatureSpec
from index.features import Featurizer, normalise
from index.field_spec import FieldSpec
from index.hashing import digest, salt
from index.lexicon import Lexicon
from training.feature_fitting import Records, fit_features, learn_pieces, levelled_parts, of_tower, quantile_edges

NOTHING = Records([])
TEXTS = [
    "the red apple",
    "the green apples",
    "a red bicycle",
    "日本 の 料理",
    "größe und übung",
    "the the the",
    "",
    "c++ 😀",
]


def values(*numbers: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(numbers, dtype=np.float64)


@pytest.mark.parametrize(
    ("numbers", "bins", "edges"),
    [
        ((1, 2, 3, 4), 4, (1.5, 2.5, 3.5)),
        ((1, 2, 3, 4), 2, (2.5,)),
        ((4, 1, 3, 2, 1), 32, (1.5, 2.5, 3.5)),
        # Nine in ten are 0: what is above it is not 0, and is cut where the quantiles say.
        ((*[0] * 90, *range(1, 11)), 10, (0.5,)),
        ((*[0] * 90, *range(1, 11)), 20, (0.5, 5.5)),
        ((*range(1, 11), *[99] * 90), 4, (54.5,)),
        ((-5, *[0] * 8, 5), 4, (-2.5, 2.5)),
        ((7, 7, 7), 8, ()),
        ((7,), 8, ()),
        ((), 8, ()),
        ((math.nan, math.nan), 8, ()),
        ((math.nan, 1, 2, math.inf, -math.inf), 8, (1.5,)),
        ((1e308, 1.7e308, -1.7e308), 8, (-3.5e307, 1.35e308)),
        ((-0.0, 0.0), 8, ()),
    ],
)
def test_edges_are_those_counted_by_hand(numbers: tuple[float, ...], bins: int, edges: tuple[float, ...]) -> None:
    assert quantile_edges(values(*numbers), bins) == pytest.approx(edges, rel=1e-12)


def test_an_edge_between_neighbouring_floats_tells_them_apart() -> None:
    low = 1.0
    high = np.nextafter(low, 2.0)
    (edge,) = quantile_edges(values(low, high), 2)
    assert low < edge <= high


@pytest.mark.parametrize("seed", range(5))
def test_bins_of_distinct_numbers_are_of_equal_size_and_never_more_than_wanted(seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = values(*(random.permutation(1000) * 0.5).tolist())
    edges = quantile_edges(numbers, 10)
    assert np.bincount(np.searchsorted(edges, numbers)).tolist() == [100] * 10
    skewed = values(*np.floor(random.lognormal(0, 2, 500)).tolist())
    edges = quantile_edges(skewed, 16)
    assert 1 <= len(edges) <= 15 and not np.isin(edges, skewed).any()
    assert all(one < other for one, other in pairwise(edges))
    for value, count in Counter(skewed.tolist()).items():
        if count >= 2 * 500 / 15:  # fills two bins: alone in its own
            place = np.searchsorted(edges, value)
            assert set(skewed[np.searchsorted(edges, skewed) == place].tolist()) == {value}


def parts_by_hand(rows: int, counts: list[int], least: int) -> list[int]:
    """Rows dealt one at a time: the smallest parts first that want one still, of equal ones the largest feature."""
    wanted = [max(least, count) for count in counts]
    sizes = [least] * len(counts)
    for _ in range(rows - sum(sizes)):
        waiting = [place for place in range(len(counts)) if sizes[place] < wanted[place]]
        sizes[min(waiting, key=lambda place: (sizes[place], -wanted[place], place))] += 1
    return sizes


def test_parts_are_level_until_each_has_as_many_rows_as_values() -> None:
    assert levelled_parts(10, [1, 1, 1]) == (0, 4, 7, 10)
    assert levelled_parts(100, [600, 300, 100]) == (0, 34, 67, 100)
    assert levelled_parts(40, [2, 7, 30, 80]) == (0, 2, 9, 24, 40)
    assert levelled_parts(119, [2, 7, 30, 80]) == (0, 2, 9, 39, 119)
    assert levelled_parts(238, [2, 7, 30, 80]) == (0, 4, 18, 78, 238)
    assert levelled_parts(7, [1000, 1, 0]) == (0, 5, 6, 7)
    assert levelled_parts(3, [5, 5, 5]) == (0, 1, 2, 3)
    assert levelled_parts(5, [0, 0]) == (0, 3, 5)
    assert levelled_parts(9, [4]) == (0, 9)
    assert levelled_parts(1 << 31, [10**12, 10**12 + 1, 1]) == (0, 1073741823, 2147483647, 1 << 31)
    random = np.random.default_rng(3)
    for _ in range(200):
        counts = random.integers(0, 500, random.integers(1, 9)).tolist()
        least = int(random.integers(1, 3))
        rows = int(random.integers(least * len(counts), 1000))
        parts = levelled_parts(rows, counts, least=least)
        sizes = np.diff(parts).tolist()
        assert parts[0] == 0 and parts[-1] == rows and min(sizes) >= least
        if rows < sum(max(least, count) for count in counts):
            assert sizes == parts_by_hand(rows, counts, least)
        else:
            assert all(size >= count for size, count in zip(sizes, counts, strict=True))


def test_a_table_with_fewer_rows_than_parts_is_refused() -> None:
    with pytest.raises(InputError, match=r"features\.rows: must be at least 6, for 3 parts, is 5"):
        levelled_parts(5, [1, 2, 3], least=2)


def test_numeric_edges_come_from_the_towers_that_read_the_field() -> None:
    queries = Records(["", "", ""], [{"age": 1, "size": 5}, {"age": "3.0", "size": None}, None])
    labels = Records(["", ""], [{"age": 100, "size": "7"}, {"age": math.nan, "size": 9.0}])
    both = FieldSpec("size", "numeric")
    spec = FeatureSpec(
        fields=(FieldSpec("age", "numeric", tower="query"), both, FieldSpec("given", "numeric", edges=(4.0,)))
    )
    fitted, lexicon = fit_features(spec, queries, labels)
    assert {field.name: field.edges for field in fitted.fields} == {"age": (2.0,), "given": (4.0,), "size": (6.0, 8.0)}
    assert lexicon is None and fitted.lexicon == ""
    assert fit_features(fitted, Records(["", ""], [{"age": 50}, {"age": 60}]), NOTHING)[0] == fitted
    with pytest.raises(InputError, match="'age' must be a number"):
        fit_features(spec, Records([""], [{"age": "old"}]), NOTHING)


def test_nothing_to_fit_changes_nothing() -> None:
    for spec in (FeatureSpec(), FeatureSpec(fields=(FieldSpec("type"),), separate=True, table="quotient")):
        assert fit_features(spec, Records(TEXTS), NOTHING) == (spec, None)


def namespace_values(texts: list[str]) -> dict[str, set[Any]]:
    """Distinct words, pairs and trigrams by a loop."""
    words: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    grams: set[str] = set()
    for text in texts:
        tokens = normalise(text, 4000).split()
        words.update(tokens)
        pairs.update(pairwise(tokens))
        for token in tokens:
            around = f" {token} "
            grams.update(around[place : place + 3] for place in range(len(around) - 2))
    return {"word": words, "pair": pairs, "ngram3": grams}


FIELDS = (FieldSpec("asked", tower="query"), FieldSpec("kind", tower="label"), FieldSpec("seen", "history"))
QUERIES = Records(
    [*TEXTS], [{"asked": ["a", "b", "a"], "kind": "never read"}, {"seen": ["x", "y", "x"]}, *[None] * (len(TEXTS) - 2)]
)
LABELS = Records(["red apple", "label text"], [{"kind": "k", "asked": "never read"}, {"seen": ["z"], "kind": "k"}])


def test_parts_of_a_split_table_follow_the_distinct_values_of_train() -> None:
    for table, least in (("split", 1), ("quotient_split", 2)):
        spec = FeatureSpec(rows=60, fields=FIELDS, table=table)
        fitted, lexicon = fit_features(spec, QUERIES, LABELS)
        texts = namespace_values([*QUERIES.texts, *LABELS.texts])
        counts = [*(len(texts[name]) for name in ("word", "pair", "ngram3")), 2, 1, 3]
        assert spec.namespaces == ("word", "pair", "ngram3", "field:asked", "field:kind", "field:seen")
        # A quotient and a remainder are two look-ups; a history's values have one row each.
        counts = [count * least for count in counts[:-1]] + counts[-1:]
        assert sum(counts) > 60
        assert np.diff(fitted.parts).tolist() == parts_by_hand(60, counts, least)
        assert lexicon is None
        Featurizer(fitted, "label")(LABELS.texts, [None, {"kind": "k"}])
        assert fit_features(fitted, Records(["other texts"]), NOTHING)[0] == fitted
    with pytest.raises(InputError, match="must be at least 6, for 6 parts, is 5"):
        fit_features(FeatureSpec(rows=5, fields=FIELDS, table="split"), QUERIES, LABELS)


def test_the_exact_vocabulary_has_every_value_of_train_and_no_other() -> None:
    spec = FeatureSpec(fields=FIELDS, table="exact", separate=True)
    fitted, lexicon = fit_features(spec, QUERIES, LABELS)
    assert lexicon is not None and lexicon.vocabulary is not None and lexicon.pieces is None
    texts = namespace_values([*QUERIES.texts, *LABELS.texts])
    assert fitted.rows == len(lexicon.vocabulary) == sum(len(found) for found in texts.values()) + 2 + 1 + 3
    assert fitted.lexicon == lexicon.digest and (np.diff(lexicon.vocabulary.astype(object)) > 0).all()
    for name, value in (("asked", "a"), ("asked", "b"), ("kind", "k"), ("seen", "z")):
        assert np.uint64(digest(value)) ^ salt(0, f"field:{name}") in lexicon.vocabulary
    assert np.uint64(digest("never read")) ^ salt(0, "field:kind") not in lexicon.vocabulary
    train = Featurizer(fitted, "query", lexicon)(QUERIES.texts, of_tower(QUERIES.fields, FIELDS, "query"))
    assert train.unseen is not None and not train.unseen.any()
    strange = Featurizer(fitted, "query", lexicon)(["qqqqq"], [{"asked": "c"}])
    assert strange.unseen is not None and strange.unseen.tolist() == [1 + 3 + 2 + 1 - 2] and not len(strange.rows)
    # Fitted once, fitted for good.
    assert fit_features(fitted, Records(["other"]), NOTHING, lexicon) == (fitted, lexicon)


def test_an_exact_table_of_a_corpus_that_says_nothing_has_one_row() -> None:
    fitted, lexicon = fit_features(FeatureSpec(table="exact"), Records(["", " "]), NOTHING)
    assert fitted.rows == 1 and lexicon is not None and lexicon.vocabulary is not None and not len(lexicon.vocabulary)
    assert len(Featurizer(fitted, "query", lexicon)(["apple"]).rows) == 0


def corpus_of_words(count: int = 400) -> list[str]:
    random = np.random.default_rng(0)
    stems = ["walk", "talk", "jump", "größ", "日本", "кошк", "under", "stand"]
    ends = ["ing", "ed", "s", "er", "料理", "ами", ""]
    return [
        " ".join(f"{random.choice(stems)}{random.choice(ends)}" for _ in range(int(random.integers(0, 6))))
        for _ in range(count)
    ]


def test_pieces_spell_the_texts_and_are_as_many_as_wanted() -> None:
    texts = corpus_of_words()
    spec = FeatureSpec(pieces=80)
    content = learn_pieces(spec, texts)
    library = Tokenizer.from_str(content)
    assert library.get_vocab_size() <= 80
    assert {"▁walk", "ing"} <= set(library.get_vocab())
    for text in texts[:50]:
        normal = normalise(text, 4000)
        assert "".join(library.encode(normal[:-1]).tokens) == normal[:-1].replace(" ", "▁")
    fitted, lexicon = fit_features(spec, Records(texts[:200]), Records(texts[200:]))
    assert lexicon is not None and lexicon.pieces == content and lexicon.vocabulary is None
    assert fitted == replace(spec, lexicon=lexicon.digest)
    assert fit_features(fitted, Records(["other"]), NOTHING, lexicon) == (fitted, lexicon)


def test_rare_characters_are_no_pieces_and_half_of_the_pieces_are_for_longer_ones() -> None:
    signs = [chr(0x4E00 + place) for place in range(300)]
    texts = ["abab abab", *("".join(signs[:place]) for place in range(1, 301, 10)), "ab " * 50]
    library = Tokenizer.from_str(learn_pieces(FeatureSpec(pieces=40), texts))
    single = [piece for piece in library.get_vocab() if len(piece) == 1]
    counted = Counter(sign for text in texts for sign in normalise(text, 4000)[:-1].replace(" ", "▁"))
    wanted = sorted(counted, key=lambda sign: (-counted[sign], sign))[:20]
    assert len(single) == 20 and len(library.get_vocab()) <= 40
    assert {counted[sign] for sign in single} == {counted[sign] for sign in wanted}
    assert library.encode(f" {signs[-1]}").tokens in ([], ["▁"])


@pytest.mark.parametrize("texts", [[], [""], ["😀"], ["a"], ["a" * 5000]])
def test_corpora_of_next_to_nothing_have_pieces_too(texts: list[str]) -> None:
    fitted, lexicon = fit_features(FeatureSpec(pieces=10), Records(texts), NOTHING)
    assert lexicon is not None
    bags = Featurizer(fitted, "query", lexicon)(["", "a b", "aaaa"])
    assert len(bags) == 3


_PROGRAM = """
import os, sys
sys.path[:0] = [{root!r}, {here!r}]
from test_feature_fitting import corpus_of_words
from index.feature_spec import FeatureSpec
from training.feature_fitting import Records, fit_features
print(fit_features(FeatureSpec(pieces=120, table="exact"), Records(corpus_of_words(300)), Records(["ab"]))[0])
"""


def test_another_process_with_other_threads_and_hash_seed_fits_the_same() -> None:
    root, here = str(Path(__file__).parents[2]), str(Path(__file__).parent)
    said = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(root=root, here=here)],
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel, "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout
        for parallel, seed in (("true", "1"), ("false", "2"))
    }  # fmt: skip
    fitted, _ = fit_features(FeatureSpec(pieces=120, table="exact"), Records(corpus_of_words(300)), Records(["ab"]))
    assert said == {f"{fitted}\n"}


def test_pieces_and_exact_rows_and_numbers_are_fitted_together() -> None:
    spec = FeatureSpec(fields=(FieldSpec("age", "numeric"),), pieces=40, table="exact", separate=True)
    queries = Records(["walking", "talking", "walked"], [{"age": 1}, {"age": 2}, None])
    fitted, lexicon = fit_features(spec, queries, Records(["jump"], [None]))
    assert lexicon is not None and lexicon.pieces is not None and lexicon.vocabulary is not None
    assert fitted.fields[0].edges == (1.5,) and fitted.rows == len(lexicon.vocabulary)
    unseen = Featurizer(fitted, "query", lexicon)(queries.texts, queries.fields).unseen
    assert unseen is not None and not unseen.any()


def test_a_spec_and_a_lexicon_that_do_not_belong_together_are_refused() -> None:
    lexicon = Lexicon(None, np.array([1], dtype=np.uint64))
    for spec, given in ((FeatureSpec(table="exact", lexicon="ab"), None), (FeatureSpec(table="exact"), lexicon)):
        with pytest.raises(InputError, match=r"features\.lexicon: names what another run has learned"):
            fit_features(spec, NOTHING, NOTHING, given)


def test_only_the_fields_of_a_tower_are_passed_on() -> None:
    fields = [{"asked": 1, "kind": 2}, {"kind": 3}, None, {"seen": [1]}]
    assert of_tower(fields, FIELDS, "query") == [{"asked": 1}, None, None, {"seen": [1]}]
    assert of_tower(fields, FIELDS, "label") == [{"kind": 2}, {"kind": 3}, None, {"seen": [1]}]
    assert of_tower(None, FIELDS, "label") is None
    assert of_tower(fields, FIELDS[2:], "label") is fields
