"""CSV and TSV with a header: rows by line number, cells by column name."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from index.errors import InputError
from training.importing.inputs import InputFile, read_lines

# The csv module by itself takes 131,072 characters; an unclosed quote has to end somewhere all the same.
_LONGEST_CELL = 1 << 28


def read_cells(file: InputFile, *, quotes: bool = True) -> Iterator[tuple[str, list[str]]]:
    """(place for messages, cells) of every row that is not blank, the header too; tabs divide a .tsv, commas others.

    Raises InputError naming file and line for a quote that is not closed or has something behind it.
    """
    csv.field_size_limit(_LONGEST_CELL)
    tabs = file.path.name.removesuffix(".gz").endswith(".tsv")
    lines = (line + "\n" for _, line in read_lines(file))
    delimiter = "\t" if tabs else ","
    if quotes:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{file.path}:{line}: has faulty quotes ({error}); mend it or give --no-quotes") from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield f"{file.path}:{line}", cells


def read_header(file: InputFile, *, quotes: bool = True) -> list[str]:
    """The names of the columns, none where there is no line. Raises InputError as read_cells does."""
    return _names(read_cells(file, quotes=quotes))


def read_columns(file: InputFile, names: Sequence[str], *, quotes: bool = True) -> Iterator[tuple[str, list[str]]]:
    """(place for messages, the cells of these columns, in their order) of every row after the header.

    Raises InputError for a column that the header lacks or has twice, and for a row of another number of cells.
    """
    rows = read_cells(file, quotes=quotes)
    header = _names(rows)
    for name in names:
        if header.count(name) != 1:
            has = "has no" if name not in header else "has more than one"
            raise InputError(f"{file.path}: {has} column {name!r}; its columns are {', '.join(header) or 'none'}")
    places = [header.index(name) for name in names]
    for place, cells in rows:
        if len(cells) != len(header):
            raise InputError(f"{place}: has {len(cells)} cells, the header has {len(header)}; quote what is in a cell")
        yield place, [cells[column] for column in places]


def _names(rows: Iterator[tuple[str, list[str]]]) -> list[str]:
    return [name.strip() for name in next(rows, ("", []))[1]]
