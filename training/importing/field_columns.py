"""The columns of a table that become fields: which they are, what they are called, and the values of their cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from index.errors import InputError
from training.importing.source import ImportOptions


@dataclass(frozen=True, slots=True)
class FieldColumn:
    """A column and the field that it becomes; separator: between the values of a list, None where a cell is a value."""

    column: str
    field: str
    separator: str | None = None


def field_columns(options: ImportOptions, taken: Collection[str] = ()) -> tuple[FieldColumn, ...]:
    """The columns that were named, those of lists last; `taken` are fields that are there already.

    Raises InputError for a blank name, a field that two columns become or that is taken, or a separator that is empty.
    """
    found = [_column("--field-column", name, None) for name in options.field_columns]
    for name, separator in options.list_columns:
        if not separator:
            raise InputError(f"--list-column: {name!r} has an empty separator; give what stands between two values")
        found.append(_column("--list-column", name, separator))
    fields = [*taken, *(one.field for one in found)]
    twice = next((one.field for one in found if fields.count(one.field) > 1), None)
    if twice is not None:
        raise InputError(f"--field-column: more than one column becomes the field {twice!r}; write NAME=FIELD for one")
    return tuple(found)


def fields_of(
    cells: Sequence[str], columns: Sequence[FieldColumn], missing: Collection[str]
) -> Mapping[str, str | list[str]]:
    """What these cells, one for each column, say: trimmed strings and lists of them, without the empty and missing."""
    found: dict[str, str | list[str]] = {}
    for cell, column in zip(cells, columns, strict=True):
        parts = [cell] if column.separator is None else cell.split(column.separator)
        values = [value for part in parts if (value := part.strip()) and value not in missing]
        if values:
            found[column.field] = values[0] if column.separator is None else values
    return found


def _column(option: str, text: str, separator: str | None) -> FieldColumn:
    # The last sign divides, for a column's name may have one, too.
    name, sign, field = text.rpartition("=")
    column = FieldColumn(name.strip(), field.strip(), separator) if sign else FieldColumn(field, field, separator)
    if not column.column.strip() or not column.field:
        raise InputError(f"{option}: {text!r} lacks a name; write NAME or NAME=FIELD")
    try:
        column.field.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{option}: {text!a} is not valid Unicode; give the field another name") from error
    return column
