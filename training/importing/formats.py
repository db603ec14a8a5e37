"""The formats that can be imported, and which of them a place is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from index.errors import InputError
from training.importing import annif, interactions, table, xc, xc_combined, xc_json
from training.importing.place import Place
from training.importing.source import ImportOptions, Source


@dataclass(frozen=True, slots=True)
class Format:
    """matches: whether a place looks like it, from file names and first lines; open: read what a place has of it."""

    name: str
    looked_for: str
    matches: Callable[[Place, ImportOptions], bool]
    open: Callable[[Place, ImportOptions], Source]


# In the order in which they are tried: named columns say it outright, and JSON lines often lie beside sparse text.
FORMATS = (
    Format(interactions.NAME, interactions.LOOKED_FOR, interactions.matches, interactions.open_source),
    Format(table.NAME, table.LOOKED_FOR, table.matches, table.open_source),
    Format(xc_json.NAME, xc_json.LOOKED_FOR, xc_json.matches, xc_json.open_source),
    Format(xc.NAME, xc.LOOKED_FOR, xc.matches, xc.open_source),
    Format(annif.FOLDER, annif.LOOKED_FOR[annif.FOLDER], annif.matches_folder, annif.open_folder),
    Format(xc_combined.NAME, xc_combined.LOOKED_FOR, xc_combined.matches, xc_combined.open_source),
    Format(annif.CSV, annif.LOOKED_FOR[annif.CSV], annif.matches_csv, annif.open_csv),
    Format(annif.TSV, annif.LOOKED_FOR[annif.TSV], annif.matches_tsv, annif.open_tsv),
)


def open_source(place: Place, options: ImportOptions) -> Source:
    """The source in the format that was named, else in the first that matches.

    Raises InputError that lists what was looked for when none does, and for options that the format does not have.
    """
    if options.format is None:
        found = next((known for known in FORMATS if known.matches(place, options)), None)
    else:
        found = next((known for known in FORMATS if known.name == options.format), None)
        if found is None:
            names = ", ".join(known.name for known in FORMATS)
            raise InputError(f"--format: {options.format!r} is not known; give one of {names}")
    if found is None:
        looked = "; ".join(f"{known.looked_for} ({known.name})" for known in FORMATS)
        hint = "" if place.file is None else "; of a repository, give the folder"
        raise InputError(f"{place.path}: is in no known format{hint}. Looked for, each plain or as .gz: {looked}")
    _check_options(found.name, options)
    return found.open(place, options)


def _check_options(name: str, options: ImportOptions) -> None:
    """Raises InputError for columns and settings that only another format has."""
    columns = bool(options.text_columns or options.labels_column or options.id_column)
    fields = bool(options.field_columns or options.list_columns or options.missing)
    if name not in (table.NAME, interactions.NAME) and (columns or fields):
        raise InputError(f"--format: {name} has columns of its own; name columns for {table.NAME} only")
    if name == interactions.NAME and (columns or options.labels_file):
        raise InputError(
            f"--format: {name} has users, items and times; name them with --user-column, --item-column, --time-column, "
            "and the table of the items with --items"
        )
    if name != interactions.NAME and interactions.settings(options):
        found = ", ".join(interactions.settings(options))
        raise InputError(f"--format: {name} is no {interactions.NAME}, and {found} is of these; give that format")
