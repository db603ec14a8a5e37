"""Which labels a caller wants to see: those whose fields have one of the values that are asked for, of every name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from index.errors import InputError, json_kind
from index.facets import facet_key


@dataclass(frozen=True, slots=True)
class LabelFilter:
    """names: for every name that is asked for, in alphabetical order, the keys (index.facets) of its values, of which
    a label has to have one at least."""

    names: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, asked: Mapping[str, object]) -> LabelFilter:
        """As in {"lang": "de", "type": ["book", "map"], "year": 1990}: any of a list's values, all of the names.

        A name or value that no label has matches nothing, and neither does an empty list; without any name every label
        matches. Raises InputError naming the field for a value that is neither a string, a number, true or false, nor a
        list of these.
        """
        if not isinstance(asked, Mapping):
            raise InputError(f"filter must be an object of names and values, is {json_kind(asked)}")
        return cls(tuple(_keys(name, asked[name]) for name in sorted(asked)))


def _keys(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        raise InputError(f"filter {name[:100]!a}: must have a value, is null; leave it out")
    values = value if isinstance(value, (list, tuple)) else [value]
    try:
        return tuple(sorted({facet_key(name, one) for one in values}))
    except InputError as error:
        raise InputError(f"filter: {error}") from error
