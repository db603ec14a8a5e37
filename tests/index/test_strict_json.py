"""JSON that readers could take for different things is refused."""

from __future__ import annotations

import json

import pytest

from index.errors import InputError
from index.strict_json import parse_json


@pytest.mark.parametrize("value", [None, [], {}, {"a": {"a": [1, -0.5, "größe\u0000日本"]}}, 10**400, "\ud800", 1e300])
def test_what_is_json_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("NaN", "is not JSON: NaN is no JSON number"),
        ('{"a": [-Infinity]}', "is not JSON: -Infinity is no JSON number"),
        ('{"a": 1, "a": 1}', "has the key 'a' twice in one object; keep one"),
        ('[{"b": {"x": 1, "\\u00fc": 2, "ü": 3}}]', r"has the key '\\xfc' twice"),
        ('{"' + "a" * 1000 + '": 1, "' + "a" * 1000 + '": 2}', "has the key 'a{100}' twice"),
    ],
)
def test_what_is_not_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        parse_json(text)


def test_other_faults_are_those_of_the_reader() -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json("{")
    with pytest.raises(ValueError, match="digits"):
        parse_json("9" * 5000)
    with pytest.raises(RecursionError):
        parse_json("[" * 200_000)
