"""The fields of a record: which of them a model reads, and the values that they come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from index.errors import InputError, json_kind
from index.field_spec import FieldSpec

Fields = Mapping[str, object]
# Of one field of one record: what they cost in memory is for each of them, and a body may hold a million.
MOST_VALUES = 1000
MOST_COMBINATIONS = 1000
_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class FieldValues:
    """What the fields of one record say, by name; a field that says nothing is in neither.

    values: of a categorical field one, of a multivalent one each once, of a history the newest, oldest first, of a text
    the text. numbers: of numeric fields; they may be infinite, but are never NaN.
    """

    values: Mapping[str, list[str]]
    numbers: Mapping[str, float]


def field_values(
    fields: Fields | None,
    specs: Sequence[FieldSpec],
    tower: str | None = None,
    crosses: Sequence[Sequence[str]] = (),
) -> FieldValues:
    """What the fields say, all checked: what a Featurizer of these specs and crosses takes passes, and nothing else.

    tower: "query" or "label", whose record it is; None for either. crosses: those that this tower reads.
    A field that is missing or null says nothing, and neither does a multivalent one or a history that is []. A string
    is its own value; a number and true or false are as JSON writes them, a whole number without a point. Raises
    InputError naming the field that is not among `specs`, is of the other tower only, or has no value of its kind, or
    the cross with too many combinations.
    """
    by_name = {spec.name: spec for spec in specs}
    said = read_fields(fields, by_name, tower)
    for cross in crosses:
        # A number that is missing has a bin for that; without a value of another field there is no combination.
        numeric = {name for name in cross if name in by_name and by_name[name].kind == "numeric"}
        each = [1 if name in numeric else len(said.values.get(name, ())) for name in cross]
        check_combinations(cross, math.prod(each))
    return said


def check_combinations(cross: Sequence[str], count: int) -> None:
    """Raises InputError for a cross of which a record has more than can be taken."""
    if count > MOST_COMBINATIONS:
        raise InputError(
            f"fields {', '.join(map(shown_name, cross))} have {count} combinations of values, each of which is a "
            f"feature; at most {MOST_COMBINATIONS} are taken"
        )


def read_fields(fields: Fields | None, specs: Mapping[str, FieldSpec], tower: str | None) -> FieldValues:
    """As field_values, specs by their names; tower: None for either."""
    values: dict[str, list[str]] = {}
    numbers: dict[str, float] = {}
    for name, value in (fields or {}).items():
        spec = specs.get(name)
        if spec is None:
            reads = f"it reads {', '.join(specs)}" if specs else "it reads none"
            raise InputError(f"field {shown_name(name)} is not read by this model ({reads}); leave it out")
        if tower is not None and not spec.of(tower):
            plural = {"query": "queries", "label": "labels"}
            raise InputError(
                f"field {shown_name(name)} is read of {plural[spec.tower]}, not of {plural[tower]}; leave it out"
            )
        if value is None:
            continue
        if spec.kind == "numeric":
            number = _number(name, value)
            if number == number:
                numbers[name] = number
        elif found := _values(spec, value):
            values[name] = found
    return FieldValues(values, numbers)


def fields_read(fields: Fields | None, specs: Sequence[FieldSpec]) -> Fields | None:
    """Those of a record's fields that are among `specs` and say something, checked; None when there are none.

    Raises InputError as field_values does, but for neither unknown names nor those of one tower only.
    """
    by_name = {spec.name: spec for spec in specs}
    found = {name: value for name, value in (fields or {}).items() if name in by_name and value is not None}
    read_fields(found, by_name, None)
    return found or None


def shown_name(name: str) -> str:
    """A field's name as messages have it: quoted, in ASCII, and not endless."""
    return f"{name[:_NAME_CHARACTERS]!a}"


def _values(spec: FieldSpec, value: object) -> list[str]:
    if type(value) is str and spec.kind != "text":
        return [scalar_text(spec.name, value)]
    if not isinstance(value, (list, tuple)):
        return [value if spec.kind == "text" and isinstance(value, str) else scalar_text(spec.name, value)]
    if spec.kind == "history":
        return [scalar_text(spec.name, one) for one in value[-spec.length :]]
    if spec.kind == "multivalent":
        if len(value) > MOST_VALUES:
            raise InputError(f"field {shown_name(spec.name)} has {len(value)} values; at most {MOST_VALUES} are taken")
        return list(dict.fromkeys([scalar_text(spec.name, one) for one in value]))
    advice = 'give one value, or make the field "multivalent"' if spec.kind == "categorical" else "give one string"
    raise InputError(f"field {shown_name(spec.name)} is {spec.kind} and has a list of {len(value)} values; {advice}")


def _number(name: str, value: object) -> float:
    """NaN for what is none; a number too large for a float is infinite."""
    match value:
        case bool():
            pass
        case float():
            return value
        case int():
            try:
                return float(value)
            except OverflowError:
                return math.inf if value > 0 else -math.inf
        case str() if "_" not in value:
            try:
                return float(value)
            except ValueError:
                pass
    what = f"is {value[:_NAME_CHARACTERS]!a}" if isinstance(value, str) else f"is {json_kind(value)}"
    raise InputError(f"field {shown_name(name)} must be a number, or a string that is one, or null; {what}")


def scalar_text(name: str, value: object) -> str:
    """One value of a field as a string: a string itself, a whole number without a point.

    Raises InputError naming the field for what is neither a string, a finite number nor true or false.
    """
    match value:
        case str():
            if not value.isascii():
                try:
                    value.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise InputError(f"field {shown_name(name)} is not valid Unicode (a lone surrogate)") from error
            return value
        case bool():
            return "true" if value else "false"
        case int():
            try:
                return str(value)
            except ValueError as error:
                raise InputError(f"field {shown_name(name)} is a number of too many digits; give a string") from error
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else repr(value)
        case float():
            raise InputError(f"field {shown_name(name)} is {value}, which is no number; leave it out")
    raise InputError(
        f"field {shown_name(name)} must be a string, a number, true or false, or a list of these; "
        f"{'is' if isinstance(value, Mapping) else 'has'} {json_kind(value)}"
    )
