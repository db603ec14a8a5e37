"""Values of fields against what is written by hand, and every kind that is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from index.errors import InputError
from index.field_spec import FieldSpec, parse_fields
from index.fields import MOST_VALUES, FieldValues, field_values, fields_read

F = (FieldSpec("f"),)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("book", ["book"]),
        ("", [""]),
        (" 日本\n料理 ", [" 日本\n料理 "]),
        (1999, ["1999"]),
        (-0.0, ["0"]),
        (1999.0, ["1999"]),
        (0.5, ["0.5"]),
        (1e-7, ["1e-07"]),
        (10**400, ["1" + "0" * 400]),
        (True, ["true"]),
        (False, ["false"]),
        (None, []),
        ([], []),
        (["b", "a", "b"], ["b", "a"]),
        ([1, 1.0, "1", True], ["1", "true"]),
        (["x"] * MOST_VALUES, ["x"]),
    ],
)
def test_values_are_their_texts_each_once(value: object, texts: list[str]) -> None:
    assert field_values({"f": value}, F) == FieldValues({"f": texts} if texts else {}, {})


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("categorical", "x", ["x"]),
        ("categorical", 2.0, ["2"]),
        ("categorical", None, None),
        ("history", "x", ["x"]),
        ("history", [3, "x", 3, True], ["x", "3", "true"]),
        ("history", ("a",), ["a"]),
        ("history", [], None),
        ("text", "Two words", ["Two words"]),
        ("text", 5, ["5"]),
        ("text", "\ud800", ["\ud800"]),
        ("text", None, None),
        ("numeric", 3, 3.0),
        ("numeric", "-1e2", -100.0),
        ("numeric", "1e400", math.inf),
        ("numeric", -(10**400), -math.inf),
        ("numeric", math.nan, None),
        ("numeric", "NaN", None),
        ("numeric", None, None),
    ],
)
def test_every_kind_has_values_of_its_own(kind: str, value: object, wanted: Any) -> None:
    found = field_values({"f": value}, (FieldSpec("f", kind, length=3),))
    said = {} if wanted is None else {"f": wanted}
    assert found == (FieldValues({}, said) if kind == "numeric" else FieldValues(said, {}))


def test_no_fields_have_no_values() -> None:
    assert field_values(None, F) == field_values({}, ()) == FieldValues({}, {})


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": 1}, r"field 'f' must be a string, a number, true or false, or a list of these; is an object"),
        ([["a"]], r"field 'f' must be .*; has a list"),
        (["a", None], r"field 'f' must be .*; has null"),
        ([{}], r"field 'f' must be .*"),
        (float("nan"), r"field 'f' is nan"),
        ([float("inf")], r"field 'f' is inf"),
        ("\ud800", r"field 'f' is not valid Unicode"),
        (["x"] * (MOST_VALUES + 1), r"field 'f' has 1001 values; at most 1000 are taken"),
        pytest.param(10**5000, r"field 'f' is a number of too many digits", id="5001 digits"),
    ],
)
def test_what_is_no_value_is_refused_by_name(value: object, fault: str) -> None:
    for check in (field_values, fields_read):
        with pytest.raises(InputError, match=fault):
            check({"f": value}, F)


def test_a_field_that_is_not_read_is_refused_by_name_and_left_out_of_a_corpus() -> None:
    given: dict[str, Any] = {"lang": "en", "colour\n": {"any": "thing"}, "type": None}
    both = parse_fields(["lang", "type"])
    with pytest.raises(InputError, match=r"field 'colour\\n' is not read by this model \(it reads lang, type\)"):
        field_values(given, both)
    with pytest.raises(InputError, match=r"field 'lang' is not read by this model \(it reads none\)"):
        field_values(given, ())
    with pytest.raises(InputError) as long:
        field_values({"x" * 1_000_000: 1}, ())
    assert len(str(long.value)) < 300
    assert fields_read(given, both) == {"lang": "en"}
    others = parse_fields(["type", "other"])
    assert fields_read(given, others) is fields_read(None, others) is fields_read({}, ()) is None


def test_a_field_of_the_other_tower_is_refused_where_the_tower_is_known() -> None:
    specs = (FieldSpec("l", tower="label"), FieldSpec("q", tower="query"))
    given = {"l": "x", "q": "y"}
    with pytest.raises(InputError, match="field 'l' is read of labels, not of queries; leave it out"):
        field_values(given, specs, "query")
    with pytest.raises(InputError, match="field 'q' is read of queries, not of labels; leave it out"):
        field_values(given, specs, "label")
    assert field_values(given, specs).values == {"l": ["x"], "q": ["y"]}
    assert fields_read({**given, "more": [[]]}, specs) == given


def test_crosses_of_too_many_combinations_are_refused() -> None:
    specs = parse_fields(["a", "b", "c", {"name": "n", "kind": "numeric"}])
    crosses = (("a", "b", "n"), ("a", "b", "c"))
    forty: dict[str, object] = {"a": list(range(40)), "b": list(range(25))}
    assert len(field_values({**forty, "n": 3}, specs, crosses=crosses).values["a"]) == 40
    with pytest.raises(InputError, match=r"fields 'a', 'b', 'n' have 1040 combinations of values.* at most 1000"):
        field_values({**forty, "b": list(range(26))}, specs, crosses=crosses)
    assert field_values({"a": list(range(1000))}, specs, crosses=crosses).numbers == {}
    assert len(field_values({**forty, "c": "x"}, specs, crosses=crosses).values) == 3
    with pytest.raises(InputError, match="fields 'a', 'b', 'c' have 2000 combinations"):
        field_values({**forty, "c": ["x", "y"]}, specs, crosses=crosses)
