"""Plain CSV and TSV: the columns of text, labels, fields and id are named by the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.delimited import read_columns
from training.importing.field_columns import FieldColumn, field_columns, fields_of
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text
from training.importing.place import Place, by_role
from training.importing.source import ImportOptions, Row, Source, Tally
from training.importing.vocabulary import open_vocabulary, read_vocabulary

NAME = "table"
LOOKED_FOR = "a .csv or .tsv, with --labels-column, and --text-column or --field-column"


def matches(place: Place, options: ImportOptions) -> bool:
    """Whether the caller has named columns."""
    return bool(options.text_columns or options.labels_column or options.field_columns or options.list_columns)


def open_source(place: Place, options: ImportOptions) -> Source:
    """The rows of every split's table. Raises InputError when there is none or no columns were named."""
    columns = field_columns(options)
    if not (options.text_columns or columns) or options.labels_column is None:
        raise InputError(
            f"{place.path}: name the columns of the table with --labels-column, and --text-column or --field-column"
        )
    if not options.labels_separator:
        raise InputError("--labels-separator: must not be empty; give what stands between two labels")
    paths = by_role(place, place.ending(".csv", ".tsv"))
    if not any(split in paths for split in SPLITS):
        raise InputError(f"{place.path}: has no table; looked for {LOOKED_FOR}, plain or as .gz")
    files: list[InputFile] = []
    splits: dict[str, Callable[[Labels, Tally], Iterator[Row]]] = {}
    for split in SPLITS:
        if split in paths:
            files.append(open_text(paths[split], options.encoding))
            splits[split] = partial(_rows, files[-1], options, columns)
    listed = options.labels_file or paths.get("labels")
    if listed is None:
        note = "there is no labels file: the labels are those that the records name, and their ids are their texts"
        return Source(NAME, tuple(files), splits, None, notes=(note,))
    labels = open_vocabulary(listed, options)
    return Source(NAME, (*files, labels), splits, partial(read_vocabulary, labels, options))


def _rows(
    file: InputFile, options: ImportOptions, fields: Sequence[FieldColumn], labels: Labels, tally: Tally
) -> Iterator[Row]:
    texts = len(options.text_columns)
    named = [] if options.id_column is None else [options.id_column]
    columns = [*options.text_columns, options.labels_column or "", *named]
    own = len(columns)
    columns += [field.column for field in fields]
    for number, (place, cells) in enumerate(read_columns(file, columns, quotes=options.quotes)):
        text = " ".join(cell.strip() for cell in cells[:texts] if cell.strip())
        names = [name.strip() for name in cells[texts].split(options.labels_separator)]
        found = [label for name in names if name for label in _known(name, place, labels)]
        said = fields_of(cells[own:], fields, options.missing)
        yield Row(place, number, cells[texts + 1] if named else None, text, found, fields=said)


def _known(name: str, place: str, labels: Labels) -> list[str]:
    """The label of this name as a list, empty when nothing printable is in it."""
    known = labels.named(name, name, place)
    if known is None and labels.fixed:
        raise InputError(f"{place}: label {name[:40]!r} is not in the labels file; add it there")
    return [] if known is None else [known]
