"""Values of fields against what is written by hand, and every kind that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from index.errors import InputError
from index.fields import MOST_VALUES, field_names, field_values, fields_read


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
    assert field_values({"f": value}, ("f",)) == [("f", text) for text in texts]


def test_no_fields_have_no_values() -> None:
    assert field_values(None, ("f",)) == field_values({}, ()) == []


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
    ],
)
def test_what_is_no_value_is_refused_by_name(value: object, fault: str) -> None:
    for check in (field_values, fields_read):
        with pytest.raises(InputError, match=fault):
            check({"f": value}, ("f",))


def test_a_field_that_is_not_read_is_refused_by_name_and_left_out_of_a_corpus() -> None:
    given: dict[str, Any] = {"lang": "en", "colour\n": {"any": "thing"}, "type": None}
    with pytest.raises(InputError, match=r"field 'colour\\n' is not read by this model \(it reads lang, type\)"):
        field_values(given, ("lang", "type"))
    with pytest.raises(InputError, match=r"field 'lang' is not read by this model \(it reads none\)"):
        field_values(given, ())
    with pytest.raises(InputError) as long:
        field_values({"x" * 1_000_000: 1}, ())
    assert len(str(long.value)) < 300
    assert fields_read(given, ("lang", "type")) == {"lang": "en"}
    assert fields_read(given, ("type", "other")) is fields_read(None, ("type",)) is fields_read({}, ()) is None


@pytest.mark.parametrize("names", [["a", "a"], [""], [" "], [3]])
def test_names_are_refused_where_they_name_nothing_or_one_thing_twice(names: list[Any]) -> None:
    with pytest.raises(InputError, match="features: fields must be names"):
        field_names(names)
    assert field_names(["b", "a", "語"]) == ("a", "b", "語")
