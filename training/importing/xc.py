"""The Extreme Classification repository: raw text line by line, beside a matrix of which row has which labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text, read_lines
from training.importing.label_list import check_columns, open_label_list, read_label_list, unnamed_labels
from training.importing.matrix import Exclusions, LabelRows, open_exclusions, open_label_rows
from training.importing.place import Place, prefixed
from training.importing.source import ImportOptions, ListedLabel, Row, Source, Tally

NAME = "xc"
LOOKED_FOR = "trn_X_Y.txt or Y.trn.npz beside trn_X.txt, trn.raw.txt, X.trn.txt or train_raw_texts.txt"

_TEXTS = ("{}_X.txt", "{}.raw.txt", "X.{}.txt", "{}_raw_texts.txt")
_MATRICES = ("{}_X_Y.txt", "Y.{}.npz", "{}_X_Y.npz")
_LABELS = ("Y.txt", "lbl.raw.txt", "Yf.txt", "label_map.txt", "output-items.txt")


def matches(place: Place, options: ImportOptions) -> bool:
    """Whether there is a training matrix; what is then missing beside it, `open_source` says."""
    return place.file is None and place.find(prefixed("train", _MATRICES)) is not None


def open_source(place: Place, options: ImportOptions) -> Source:
    """The rows of all splits that are there. Raises InputError for a text without matrix or a matrix without text."""
    files: list[InputFile] = []
    splits: dict[str, Callable[[Labels, Tally], Iterator[Row]]] = {}
    matrices: list[LabelRows] = []
    for split in SPLITS:
        text_path, matrix_path = _pair(place, split)
        if text_path is None or matrix_path is None:
            continue
        text = open_text(text_path, options.encoding)
        matrix = open_label_rows(matrix_path, options.encoding)
        exclusions = open_exclusions(place, split, options)
        matrices.append(matrix)
        files += [text, matrix.file, *([exclusions.file] if exclusions else [])]
        splits[split] = partial(_rows, text, matrix, exclusions)
    if not splits:
        raise InputError(f"{place.path}: has no matrix; looked for {LOOKED_FOR}")
    listed = open_label_list(place, _LABELS, options)
    if listed is None:
        note = "no file has the labels' texts: they are known by their training records only"
        return Source(NAME, tuple(files), splits, partial(_unnamed, matrices), numbered=True, notes=(note,))
    files.append(listed)
    return Source(NAME, tuple(files), splits, partial(read_label_list, listed), numbered=True)


def _pair(place: Place, split: str) -> tuple[Path | None, Path | None]:
    """The text and the matrix of a split, or neither."""
    texts, matrices = prefixed(split, _TEXTS), prefixed(split, _MATRICES)
    text, matrix = place.find(texts), place.find(matrices)
    if matrix is not None and text is None:
        raise InputError(f"{place.path}: has {matrix.name} but not its raw text; looked for {', '.join(texts)}")
    if text is not None and matrix is None:
        raise InputError(f"{place.path}: has {text.name} but not its labels; looked for {', '.join(matrices)}")
    return text, matrix


def _rows(
    text: InputFile, matrix: LabelRows, exclusions: Exclusions | None, labels: Labels, tally: Tally
) -> Iterator[Row]:
    """Line n of the text with row n of the matrix. Raises InputError when they are not equally many."""
    check_columns(matrix.columns, str(matrix.file.path), labels, tally)
    rows = matrix.read(tally)
    number = 0
    for line, query in read_lines(text):
        row = next(rows, None)
        if row is None:
            # Empty lines at the end of a text are no records.
            if not query.strip():
                continue
            raise _uneven(text, sum(1 for _ in read_lines(text)), matrix, number)
        place, numbers = row
        found = [labels.numbered(label, place) for label in numbers]
        exclude = exclusions.of(number, labels) if exclusions else ()
        yield Row(f"{text.path}:{line}", number, None, query, found, exclude)
        number += 1
    left = sum(1 for _ in rows)
    if left:
        raise _uneven(text, number, matrix, number + left)
    if exclusions:
        exclusions.check_rows(number)


def _uneven(text: InputFile, texts: int, matrix: LabelRows, rows: int) -> InputError:
    return InputError(f"{text.path}: has {texts} lines, {matrix.file.path} has {rows} rows; line n must be row n")


def _unnamed(matrices: list[LabelRows]) -> Iterator[ListedLabel]:
    """A label without text for every column that some matrix says or uses."""
    columns = 0
    for matrix in matrices:
        used = (max(numbers, default=-1) for _, numbers in matrix.read(Tally()))
        columns = max(columns, matrix.columns if matrix.columns is not None else 1 + max(used, default=-1))
    return unnamed_labels(columns, str(matrices[0].file.path))
