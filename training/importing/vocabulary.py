"""Lists of labels by id: Annif's vocabularies as TSV and CSV, a table of ids and texts, or our own labels file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from index.errors import InputError
from training.corpus import read_labels
from training.importing.delimited import read_columns, read_header
from training.importing.inputs import InputFile, open_text, peek, read_lines
from training.importing.source import ImportOptions, ListedLabel

_IDS = ("uri", "id", "label_id", "uid")
_TEXTS = ("text", "label", "name", "title")
_ENDINGS = (".tsv", ".csv", ".jsonl")
_URI = re.compile(r"<([^<>]*)>")


def open_vocabulary(path: Path, options: ImportOptions) -> InputFile:
    """The file. Raises InputError for a name that says no known format."""
    if not path.name.removesuffix(".gz").endswith(_ENDINGS):
        raise InputError(f"{path}: is no list of labels by id; give a {', '.join(_ENDINGS)} file, or such a .gz")
    return open_text(path, options.encoding)


def read_vocabulary(file: InputFile, options: ImportOptions) -> Iterator[ListedLabel]:
    """The labels in their order. Raises InputError naming file and line, also when there are none."""
    name = file.path.name.removesuffix(".gz")
    labels: Iterator[ListedLabel]
    if name.endswith(".jsonl"):
        labels = (ListedLabel(str(file.path), label.id, label.text) for label in read_labels(file.path))
    elif name.endswith(".tsv") and peek(file.path).partition("\t")[0].strip() not in _IDS:
        labels = _tab_separated(file)
    else:
        labels = _with_header(file, options)
    listed = False
    for label in labels:
        listed = True
        yield label
    if not listed:
        raise InputError(f"{file.path}: has no labels; write one a line")


def bare_uri(text: str) -> str:
    """A URI without the angle brackets around it."""
    match = _URI.fullmatch(text.strip())
    return match[1].strip() if match else text.strip()


def _tab_separated(file: InputFile) -> Iterator[ListedLabel]:
    """`<uri> TAB label TAB notation`, the latter two optional."""
    for line, text in read_lines(file):
        if not text.strip():
            continue
        uri, _, rest = text.partition("\t")
        place = f"{file.path}:{line}"
        if not bare_uri(uri):
            raise InputError(f"{place}: has no id before the tab; write `<uri> TAB label`")
        yield ListedLabel(place, bare_uri(uri), rest.partition("\t")[0].strip())


def _with_header(file: InputFile, options: ImportOptions) -> Iterator[ListedLabel]:
    """A header with an id column, else the first is it, and a text column, else the one after it."""
    header = read_header(file, quotes=options.quotes)
    key = next((name for name in _IDS if name in header), header[0] if header else "")
    others = [name for name in header if name != key]
    wanted = [f"label_{options.language}", *_TEXTS]
    fallback = [name for name in others if name.startswith("label_")] or others
    text = next((name for name in wanted if name in others), next(iter(fallback), None))
    columns = [key] if text is None else [key, text]
    for place, cells in read_columns(file, columns, quotes=options.quotes):
        name = bare_uri(cells[0])
        if not name:
            raise InputError(f"{place}: has no id in column {key!r}")
        yield ListedLabel(place, name, cells[1].strip() if text is not None else "")
