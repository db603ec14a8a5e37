"""Keys of values, and postings against a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import InputError
from index.facets import Facets, check_facet, facet_key, facet_keys, fields_of, fields_text, filterable

VALUES = st.one_of(
    st.sampled_from([1, 1.0, True, "1", "true", False, 0, "", "größe", "日本", 2.5]), st.text(max_size=3)
)
FIELDS = st.dictionaries(
    st.sampled_from(["lang", "type", "a\0b", "年"]), st.one_of(VALUES, st.lists(VALUES, max_size=3))
)


def has(fields: dict[str, Any] | None, name: str, value: object) -> bool:
    own = (fields or {}).get(name)
    listed = own if isinstance(own, list) else [own]
    return own is not None and any(one == value and (type(one) is bool) == (type(value) is bool) for one in listed)


@given(st.lists(st.one_of(st.none(), FIELDS), max_size=12), VALUES)
def test_postings_are_what_a_loop_over_the_labels_finds(labels: list[dict[str, Any] | None], value: object) -> None:
    facets = Facets.pack(labels)
    for name in ("lang", "type", "a\0b", "年"):
        wanted = [row for row, fields in enumerate(labels) if has(fields, name, value)]
        assert facets.having(facet_key(name, value)).tolist() == wanted
    assert list(facets.keys) == sorted(facets.keys, key=str.encode)


def test_postings_are_saved_and_opened(tmp_path: Path) -> None:
    facets = Facets.pack([{"lang": "de"}, None, {"lang": ["en", "de", "de"], "x": {"no": "scalar"}, "none": None}])
    facets.save(tmp_path)
    opened = Facets.open(tmp_path)
    assert len(opened.keys) == 2
    assert opened.having(facet_key("lang", "de")).tolist() == [0, 2]
    assert opened.having(facet_key("lang", "en")).tolist() == [2]
    for key in ("", facet_key("lang", "fr"), facet_key("zz", "de"), facet_key("a", 1)):
        assert opened.having(key).tolist() == []
    Facets.pack([]).save(tmp_path / ".")
    assert Facets.open(tmp_path).having(facet_key("lang", "de")).tolist() == []


def test_a_number_a_string_and_a_truth_are_three_values_and_a_long_one_is_known_by_its_digest() -> None:
    keys = [facet_key("a", value) for value in (1, "1", True, "true", 0, False, 1.5, "1.5", -1, 10**30)]
    assert len(set(keys)) == len(keys)
    assert facet_key("a", 1.0) == facet_key("a", 1) and facet_key("a", -0.0) == facet_key("a", 0)
    long, other = facet_key("a", "x" * 100_000), facet_key("a", "x" * 99_999 + "y")
    assert len(long) == len(other) < 100 and long != other
    assert facet_key("a", "#" * 300) != facet_key("a", "#")
    # A name with a NUL is told from a value with one.
    assert facet_key("a\0", "b") != facet_key("a", "\0b")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"deep": 1}, "field 'a' must be a string, a number, true or false, or a list of these; is an object"),
        ([["x"]], "field 'a' must be a string.*has a list"),
        ([None], "has null"),
        (float("nan"), "field 'a' is nan"),
        ([float("inf")], "field 'a' is inf"),
        ("\ud800", "lone surrogate"),
        (["x"] * 1001, "has 1001 values; at most 1000"),
        ([10**5000], "too many digits"),
    ],
)
def test_values_that_nobody_can_filter_by(value: object, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        check_facet("a", value)
    assert facet_keys({"a": value, "b": 1}) == [facet_key("b", 1)]
    assert filterable({"a": value, "b": 1}) == {"b": 1}
    assert filterable({"a": value}) is None


def test_null_and_an_empty_list_say_nothing() -> None:
    assert check_facet("a", None) == check_facet("a", []) == []
    assert filterable({"a": None, "b": []}) is filterable(None) is filterable({}) is None


@given(st.one_of(st.none(), FIELDS))
def test_fields_read_back(fields: dict[str, Any] | None) -> None:
    assert fields_of(fields_text(fields)) == (fields or None)
