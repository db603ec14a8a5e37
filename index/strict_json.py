"""JSON as its standard has it: no NaN, no infinity, no key twice in one object."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from index.errors import InputError

_NAME_CHARACTERS = 100


def parse_json(text: str) -> Any:
    """What the text says.

    Raises InputError for NaN and the infinities, which are no JSON numbers, and for a key that is twice in one object:
    readers differ in which of its values they keep. Raises what json.loads does for the rest: JSONDecodeError, a plain
    ValueError for a number of thousands of digits, RecursionError.
    """
    return _DECODER.decode(text)


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One object of its pairs, as json takes it for a hook. Raises InputError naming a key that is in them twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InputError(f"has the key {name[:_NAME_CHARACTERS]!a} twice in one object; keep one")
    return value


def _refuse(constant: str) -> None:
    raise InputError(f"is not JSON: {constant} is no JSON number")


# Made once: json.loads would make one for every call.
_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=without_duplicates)
