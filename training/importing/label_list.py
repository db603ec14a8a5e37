"""Lists whose n-th entry is label n: raw text, `id->name` lines, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

from index.errors import InputError
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text, read_lines
from training.importing.objects import read_objects, text_of, uid_of
from training.importing.place import Place
from training.importing.source import ImportOptions, ListedLabel, Tally

_JSON = (".json", ".jsonl")
# Its lines are `id->name`; elsewhere an arrow is part of a label's text.
_ARROWED = "Yf.txt"
_ARROW = "->"
_MOST_LABELS = 1 << 27


def open_label_list(place: Place, names: Sequence[str], options: ImportOptions) -> InputFile | None:
    """The file given by --labels-file, else the first of these names that is there; None when there is none."""
    path = options.labels_file or place.find(names)
    return None if path is None else open_text(path, options.encoding)


def read_label_list(file: InputFile) -> Iterator[ListedLabel]:
    """The labels, a line each. Raises InputError naming file and line, also when there are none."""
    listed = False
    for label in _read(file):
        listed = True
        yield label
    if not listed:
        raise InputError(f"{file.path}: has no labels; it must have one a line")


def unnamed_labels(columns: int, place: str) -> Iterator[ListedLabel]:
    """So many labels without text. Raises InputError when a file says more than anybody can have meant."""
    if columns > _MOST_LABELS:
        raise InputError(f"{place}: says that there are {columns} labels, more than {_MOST_LABELS}; is it damaged?")
    return repeat(ListedLabel(place, None, ""), columns)


def check_columns(columns: int | None, place: str, labels: Labels, tally: Tally) -> None:
    """Raises InputError when a matrix has more columns than there are labels; counts one that has fewer."""
    if columns is None:
        return
    if columns > len(labels.ids):
        raise InputError(f"{place}: has {columns} columns, but the label list has {len(labels.ids)} labels")
    if columns < len(labels.ids):
        tally.narrow.at(place)


def _read(file: InputFile) -> Iterator[ListedLabel]:
    name = file.path.name.removesuffix(".gz")
    if name.endswith(_JSON):
        for place, value in read_objects(file):
            yield ListedLabel(place, uid_of(value, place), text_of(value, place))
        return
    for line, text in read_lines(file):
        own, arrow, rest = text.partition(_ARROW) if name == _ARROWED else ("", "", "")
        yield ListedLabel(f"{file.path}:{line}", own if arrow else None, rest if arrow else text)
