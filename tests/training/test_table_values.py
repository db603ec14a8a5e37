"""Shared rows and look-ups of untrained ones, against loops over one value at a time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from index.errors import InputError
from index.features import FeatureSpec, Featurizer
from index.field_spec import FieldSpec
from index.lexicon import Lexicon
from training.feature_fitting import Records, fit_features
from training.table_values import Sharing, TableValues, Unmet

FIELDS = (FieldSpec("a"), FieldSpec("b", probes=2), FieldSpec("h", "history"), FieldSpec("z"))
SPECS = {
    "shared": FeatureSpec(rows=50, fields=FIELDS),
    "one_row": FeatureSpec(rows=1, fields=FIELDS),
    "separate": FeatureSpec(rows=64, fields=FIELDS, separate=True),
    "split": FeatureSpec(rows=60, fields=FIELDS, table="split"),
    "quotient": FeatureSpec(rows=40, fields=FIELDS, table="quotient", separate=True),
    "quotient_split": FeatureSpec(rows=70, fields=FIELDS, table="quotient_split"),
    "exact": FeatureSpec(fields=FIELDS, table="exact"),
}
Said = list[dict[str, object]]


def said(seed: int, count: int, most: int) -> Said:
    """Records without a text; nobody says anything of the field "z"."""
    chooser = random.Random(seed)

    def some(name: str, values: int) -> list[str]:
        return [f"{name}{chooser.randrange(most)}" for _ in range(values)]

    return [{"a": some("größe", 2), "b": chooser.choice((None, some("地図", 1)[0])), "h": some("x", 3)}
            for _ in range(count)]  # fmt: skip


def records(fields: Said) -> Records:
    return Records([""] * len(fields), fields)


def fitted(spec: FeatureSpec, queries: Said, labels: Said) -> tuple[FeatureSpec, Lexicon | None]:
    return fit_features(spec, records(queries), records(labels))


def values_of(fields: Said) -> Counter[tuple[str, str]]:
    """How often each value of each field is looked up; a value twice in one bag is one of it, in a history two."""
    found: Counter[tuple[str, str]] = Counter()
    for one in fields:
        for name, given in one.items():
            values = given if isinstance(given, list) else [] if given is None else [given]
            found.update((name, str(value)) for value in (values if name == "h" else dict.fromkeys(values)))
    return found


def rows_of(spec: FeatureSpec, lexicon: Lexicon | None, name: str, value: str) -> set[int]:
    """By a record that says this alone."""
    bags = Featurizer(spec, "query", lexicon)([""], [{name: value}])
    return {int(row) for row in (bags.sequences[0].rows if name == "h" else bags.rows)}


@pytest.mark.parametrize("table", SPECS)
def test_sharing_is_what_a_loop_over_all_pairs_of_values_counts(table: str) -> None:
    queries, labels = said(1, 40, 30), said(2, 10, 60)
    spec, lexicon = fitted(SPECS[table], queries, labels)
    values = TableValues(spec, lexicon)
    distinct = values.distinct([("query", records(queries)), ("label", records(labels))])
    wanted = {pair: rows_of(spec, lexicon, *pair) for pair in values_of(queries + labels)}
    assert [len(one) for one in distinct] == [
        sum(f"field:{name}" == space for name, _ in wanted) for space in spec.namespaces
    ]
    found = {one.name: one for one in values.sharing(distinct)}
    assert list(found) == ["field:a", "field:b", "field:h", "all"]
    totals = np.zeros(5)
    for name in "abh":
        own = {pair: rows for pair, rows in wanted.items() if pair[0] == name}
        same = others = alike = 0
        for pair, rows in own.items():
            for row in rows:
                same += any(row in theirs for other, theirs in own.items() if other != pair)
                others += any(row in theirs for other, theirs in wanted.items() if other[0] != name)
            alike += any(rows == theirs for other, theirs in own.items() if other != pair)
        look_ups = sum(map(len, own.values()))
        one = found[f"field:{name}"]
        assert (one.values, one.look_ups) == (len(own), look_ups)
        assert (one.same, one.others, one.alike) == pytest.approx(
            (same / look_ups, others / look_ups, alike / len(own))
        )
        assert one.load == len(own) / one.rows
        totals += (same, others, look_ups, alike, len(own))
    everything = found["all"]
    assert everything.rows == spec.rows
    assert (everything.look_ups, everything.values) == (totals[2], totals[4])
    assert everything.load == totals[4] / spec.rows
    assert (everything.same, everything.others, everything.alike) == pytest.approx(
        (totals[0] / totals[2], totals[1] / totals[2], totals[3] / totals[4])
    )


def test_the_parts_of_a_split_table_are_looked_at_one_by_one() -> None:
    queries = said(1, 40, 30)
    spec, _ = fitted(SPECS["split"], queries, [])
    shares = _by_name(spec, None, queries)
    sizes = dict(zip(spec.namespaces, np.diff(spec.parts).tolist(), strict=True))
    for name in ("field:a", "field:b", "field:h"):
        assert shares[name].rows == sizes[name]
        assert (shares[name].others, shares[name].expected_others) == (0.0, 0.0)
        assert shares[name].same > 0
    spec, lexicon = fitted(SPECS["exact"], queries, [])
    for one in _by_name(spec, lexicon, queries).values():
        assert (one.same, one.expected_same, one.others, one.expected_others, one.alike) == (0.0,) * 5


def _by_name(spec: FeatureSpec, lexicon: Lexicon | None, queries: Said) -> Mapping[str, Sharing]:
    values = TableValues(spec, lexicon)
    return {one.name: one for one in values.sharing(values.distinct([("query", records(queries))]))}


def test_what_is_expected_is_the_formula_and_what_comes() -> None:
    spec = FeatureSpec(rows=5000, fields=(FieldSpec("a"), FieldSpec("b", probes=2)))
    queries: Said = [{"a": f"v{row}", "b": f"w{row % 1500}"} for row in range(4000)]
    shares = _by_name(spec, None, queries)
    a, b = shares["field:a"], shares["field:b"]
    assert a.expected_same == pytest.approx(1 - (1 - 1 / 5000) ** 3999)
    assert a.expected_others == pytest.approx(1 - (1 - 1 / 5000) ** b.look_ups)
    assert b.expected_same == pytest.approx(1 - (1 - 1 / 5000) ** (b.look_ups - 2))
    assert b.expected_others == pytest.approx(1 - (1 - 1 / 5000) ** 4000)
    for one in (a, b):
        assert one.same == pytest.approx(one.expected_same, abs=0.03)
        assert one.others == pytest.approx(one.expected_others, abs=0.03)
    # Two rows of 5,000 tell 1,500 values apart though nearly half of the look-ups are shared.
    assert a.alike == a.same
    assert b.same > 0.4
    assert b.alike < 0.01


@pytest.mark.parametrize("table", SPECS)
def test_unmet_look_ups_are_counted_as_often_as_they_occur(table: str) -> None:
    queries, dev = said(1, 30, 20), said(3, 25, 40)
    spec, lexicon = fitted(SPECS[table], queries, [])
    chooser = np.random.default_rng(0)
    touched = [chooser.random(spec.rows) < share for share in (0.3, 0.8)]
    found = _unmet(spec, lexicon, dev, touched)
    look_ups, met = Counter[str](), [Counter[str](), Counter[str]()]
    for one in dev:
        for (name, value), count in values_of([one]).items():
            rows = rows_of(spec, lexicon, name, value)
            look_ups[f"field:{name}"] += count * max(1, len(rows))
            for counter, some in zip(met, touched, strict=True):
                counter[f"field:{name}"] += count * sum(bool(some[row]) for row in rows)
    for name in spec.namespaces:
        wanted = look_ups[name]
        assert found[name].look_ups == wanted
        if wanted:
            share = np.mean([1 - counter[name] / wanted for counter in met])
            assert found[name].untouched == pytest.approx(share)
        else:
            assert found[name].untouched is None
    everything = sum(look_ups.values())
    share = np.mean([1 - sum(counter.values()) / everything for counter in met])
    assert found["all"].look_ups == everything
    assert found["all"].untouched == pytest.approx(share)


def _unmet(
    spec: FeatureSpec, lexicon: Lexicon | None, dev: Said, touched: Sequence[NDArray[np.bool_]]
) -> Mapping[str, Unmet]:
    found = TableValues(spec, lexicon).unmet([("query", records(dev))], touched)
    return dict(zip([*spec.namespaces, "all"], found, strict=True))


def test_words_and_pieces_of_texts_are_values_too() -> None:
    texts = ["the oven, the bread", "", "größe 地図", "the the"] * 30
    spec = FeatureSpec(rows=1000, ngrams=(), pieces=40)
    spec, lexicon = fit_features(spec, Records(texts), Records(["a label"]))
    values = TableValues(spec, lexicon)
    distinct = dict(zip(spec.namespaces, values.distinct([("query", Records(texts))]), strict=True))
    assert [len(distinct[name]) for name in ("word", "pair")] == [5, 5]
    assert len(distinct["piece"]) > 3
    found = dict(
        zip(
            [*spec.namespaces, "all"],
            values.unmet([("query", Records(["the the oven"]))], [np.zeros(1000, dtype=np.bool_)]),
            strict=True,
        )
    )
    assert (found["word"], found["pair"].look_ups) == (Unmet(3, 1.0), 2)


def test_nothing_to_count_is_no_error() -> None:
    spec = FeatureSpec(rows=50, fields=FIELDS)
    values = TableValues(spec, None)
    nothing = values.distinct([("query", Records([])), ("label", Records([""]))])
    assert [len(one) for one in nothing] == [0] * len(spec.namespaces)
    assert values.sharing(nothing) == [Sharing("all", 50, 0, 0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)]
    assert set(values.unmet([("query", Records([]))], [np.ones(50, dtype=np.bool_)])) == {Unmet(0, None)}
    with pytest.raises(InputError, match="parts of a split table are not known"):
        TableValues(replace(spec, table="split"), None)


def test_a_long_corpus_is_counted_block_by_block() -> None:
    spec = FeatureSpec(rows=100, ngrams=(), pairs=False)
    texts = [f"w{chr(97 + row % 26)} x{chr(97 + row % 25)}" for row in range(20_000)]
    values = TableValues(spec, None)
    assert [len(one) for one in values.distinct([("query", Records(texts))])] == [51]
    assert values.unmet([("query", Records(texts))], [np.zeros(100, dtype=np.bool_)])[0] == Unmet(40_000, 1.0)
