"""The fields of a record: which of them a model reads, and the categorical values that they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from index.errors import InputError, json_kind
from index.field_spec import FieldSpec

Fields = Mapping[str, object]
# Of one field of one record: what they cost in memory is for each of them, and a body may hold a million.
MOST_VALUES = 1000
_NAME_CHARACTERS = 100


def field_values(fields: Fields | None, specs: Sequence[FieldSpec]) -> list[tuple[str, str]]:
    """(name, value) of all that the fields say, each pair once; nothing for a field that is missing, null or [].

    A string is its own value; a number and true or false are as JSON writes them, a whole number without a point.
    Raises InputError naming the field that is not among `specs`, or whose value is none of these or a list of these.
    """
    found = []
    names = [spec.name for spec in specs]
    for name, value in (fields or {}).items():
        if name not in names:
            reads = f"it reads {', '.join(names)}" if names else "it reads none"
            raise InputError(f"{_named(name)} is not read by this model ({reads}); leave it out")
        values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        if len(values) > MOST_VALUES:
            raise InputError(f"{_named(name)} has {len(values)} values; at most {MOST_VALUES} are taken")
        found += [(name, text) for text in dict.fromkeys(_text(name, one) for one in values)]
    return found


def fields_read(fields: Fields | None, specs: Sequence[FieldSpec]) -> Fields | None:
    """Those of a record's fields that are among `specs` and say something, checked; None when there are none.

    Raises InputError as field_values does.
    """
    names = [spec.name for spec in specs]
    found = {name: value for name, value in (fields or {}).items() if name in names and value is not None}
    field_values(found, specs)
    return found or None


def _named(name: str) -> str:
    return f"field {name[:_NAME_CHARACTERS]!a}"


def _text(name: str, value: object) -> str:
    match value:
        case str():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(f"{_named(name)} is not valid Unicode (a lone surrogate)") from error
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else repr(value)
        case float():
            raise InputError(f"{_named(name)} is {value}, which is no number; leave it out")
    raise InputError(
        f"{_named(name)} must be a string, a number, true or false, or a list of these; "
        f"{'is' if isinstance(value, Mapping) else 'has'} {json_kind(value)}"
    )
