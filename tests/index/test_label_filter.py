"""Filters as they are asked for, and what makes no sense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from index.errors import InputError
from index.facets import facet_key
from index.label_filter import LabelFilter


def test_a_filter_asks_for_any_value_of_every_name() -> None:
    asked = {"type": ["map", "book", "map"], "lang": "de", "year": 1990}
    found = LabelFilter.parse(asked)
    wanted = (
        (facet_key("lang", "de"),),
        (facet_key("type", "book"), facet_key("type", "map")),
        (facet_key("year", 1990),),
    )
    assert found.names == wanted
    same = LabelFilter.parse(json.loads('{"year": 1990.0, "lang": ["de"], "type": ["book", "map"]}'))
    assert found == same and hash(found) == hash(same)
    assert LabelFilter.parse({}).names == ()
    assert LabelFilter.parse({"lang": []}).names == ((),)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"lang": {"not": "de"}}, "filter: field 'lang' must be a string.*is an object"),
        ({"lang": [["de"]]}, "filter: field 'lang' must be a string.*has a list"),
        ({"fine": 1, "lang": None}, "filter 'lang': must have a value, is null"),
        ({"lang": ["de", None]}, "filter: field 'lang'.*null"),
        ({"lang": float("nan")}, "filter: field 'lang' is nan"),
        ({"l\ud800": "x"}, "lone surrogate"),
        ([1], "filter must be an object of names and values, is a list"),
    ],
)
def test_filters_that_make_no_sense_are_refused(asked: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        LabelFilter.parse(asked)
