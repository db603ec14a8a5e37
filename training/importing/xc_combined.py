"""The repository's older format: labels and features of a row on one line, after `rows features labels`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text, peek, read_lines
from training.importing.label_list import check_columns, open_label_list, read_label_list, unnamed_labels
from training.importing.matrix import Exclusions, entries, open_exclusions, whole_number
from training.importing.place import Place, by_role
from training.importing.source import ImportOptions, Row, Source, Tally

NAME = "xc-combined"
LOOKED_FOR = "a .txt file with train in its name whose first line is `rows features labels`"

_HEADER = re.compile(r"\s*([0-9]{1,18})\s+([0-9]{1,18})\s+([0-9]{1,18})\s*")
_LABELS = ("Y.txt", "Yf.txt", "labels.txt", "label_map.txt")
_FEATURES = ("Xf.txt", "features.txt")


def matches(place: Place, options: ImportOptions) -> bool:
    """Whether there is a training file that begins as this format does."""
    return "train" in _files(place)


def open_source(place: Place, options: ImportOptions) -> Source:
    """The rows of all splits that are there, their features as words. Raises InputError when there are none."""
    paths = _files(place)
    if not paths:
        raise InputError(f"{place.path}: has nothing in this format; looked for {LOOKED_FOR}")
    features = place.find(_FEATURES)
    names = None if features is None else open_text(features, options.encoding)
    files: list[InputFile] = [] if names is None else [names]
    splits: dict[str, Callable[[Labels, Tally], Iterator[Row]]] = {}
    columns = 0
    for split in SPLITS:
        if split not in paths:
            continue
        file = open_text(paths[split], options.encoding)
        exclusions = open_exclusions(place, split, options)
        files += [file, *([exclusions.file] if exclusions else [])]
        splits[split] = partial(_rows, file, names, exclusions)
        columns = max(columns, _sizes(file)[2])
    words = "tokens such as f12" if names is None else f"names from {names.path.name}"
    notes = [f"the source has features, no raw text: a record's text is the {words}, in the order of the source"]
    listed = open_label_list(place, _LABELS, options)
    if listed is None:
        notes.append("no file has the labels' texts: they are known by their training records only")
        unnamed = partial(unnamed_labels, columns, str(place.path))
        return Source(NAME, tuple(files), splits, unnamed, numbered=True, notes=tuple(notes))
    files.append(listed)
    return Source(NAME, tuple(files), splits, partial(read_label_list, listed), numbered=True, notes=tuple(notes))


def _files(place: Place) -> dict[str, Path]:
    """split -> file."""
    return by_role(place, [path for path in place.ending(".txt") if _HEADER.fullmatch(peek(path))])


def _sizes(file: InputFile) -> tuple[int, int, int]:
    with closing(read_lines(file)) as lines:
        header = _HEADER.fullmatch(next(lines, (1, ""))[1])
    if header is None:
        raise InputError(f"{file.path}:1: is not `rows features labels`, such as `15539 5000 3993`")
    return int(header[1]), int(header[2]), int(header[3])


def _rows(
    file: InputFile, names: InputFile | None, exclusions: Exclusions | None, labels: Labels, tally: Tally
) -> Iterator[Row]:
    rows, features, columns = _sizes(file)
    check_columns(columns, f"{file.path}:1", labels, tally)
    words = None if names is None else [line for _, line in read_lines(names)]
    if words is not None and names is not None and len(words) < features:
        raise InputError(f"{names.path}: has {len(words)} names, {file.path}:1 says {features} features")
    number = 0
    for line, text in read_lines(file):
        place = f"{file.path}:{line}"
        if line == 1:
            continue
        if number == rows:
            if text.strip():
                raise InputError(f"{place}: is beyond the {rows} rows that line 1 says")
            continue
        numbers, tokens = _parsed(text, place)
        found = [labels.numbered(label, place) for label in numbers]
        query = " ".join(_words(tokens, words, features, place))
        yield Row(place, number, None, query, found, exclusions.of(number, labels) if exclusions else ())
        number += 1
    if number < rows:
        raise InputError(f"{file.path}: has {number} rows, its line 1 says {rows}; fetch it again")
    if exclusions:
        exclusions.check_rows(number)


def _parsed(text: str, place: str) -> tuple[list[int], list[str]]:
    """Label numbers and feature tokens of a line; without labels it begins with a blank, or with its features."""
    head, _, rest = text.partition(" ")
    if ":" in head:
        head, rest = "", text
    return [whole_number(label, place) for label in head.split(",") if label.strip()], rest.split()


def _words(tokens: list[str], names: list[str] | None, features: int, place: str) -> Iterator[str]:
    for number, value in entries(tokens, place):
        if number >= features:
            raise InputError(f"{place}: feature {number} is out of range; line 1 says {features} features, from 0")
        if value:
            yield f"f{number}" if names is None else names[number]
