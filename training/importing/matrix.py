"""Which row has which labels: sparse text, SciPy's npz files, and files of (row, label) pairs to exclude."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix, load_npz

from index.errors import InputError, first_line
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_binary, open_text, read_lines
from training.importing.place import Place, prefixed
from training.importing.source import ImportOptions, Tally

_HEADER = re.compile(r"\s*([0-9]{1,18})\s+([0-9]{1,18})\s*")
_MOST_DIGITS = 18
_FILTERS = ("filter_labels_{}.txt", "{}_filter_labels.txt")


class LabelRows(Protocol):
    """The labels of every row, in order; rows and columns are what the file says of itself, None where it does not."""

    file: InputFile
    rows: int | None
    columns: int | None

    def read(self, tally: Tally) -> Iterator[tuple[str, Sequence[int]]]:
        """(place for messages, label numbers from 0, perhaps repeated or too large) for every row."""
        ...


def open_label_rows(path: Path, encoding: str | None) -> LabelRows:
    """The matrix in a file, by its name. Raises InputError when it is damaged."""
    return NpzRows(path) if path.suffix == ".npz" else SparseText(path, encoding)


class SparseText:
    """Lines of `label:value`, 0-based, after an optional `rows columns`; an empty line is a row without labels."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.file = open_text(path, encoding)
        header = None
        for _, line in read_lines(self.file):
            header = _HEADER.fullmatch(line)
            break
        self._skip = 1 if header else 0
        self.rows = int(header[1]) if header else None
        self.columns = int(header[2]) if header else None

    def read(self, tally: Tally) -> Iterator[tuple[str, Sequence[int]]]:
        """As LabelRows.read. Raises InputError naming file and line, also where the first line says other rows."""
        row = 0
        for line, text in read_lines(self.file):
            if line <= self._skip:
                continue
            if row == self.rows:
                if text.strip():
                    raise InputError(f"{self.file.path}:{line}: is beyond the {self.rows} rows that line 1 says")
                continue
            row += 1
            place = f"{self.file.path}:{line}"
            yield place, [number for number, value in entries(text.split(), place) if counts(value, tally, place)]
        if self.rows is not None and row < self.rows:
            raise InputError(f"{self.file.path}: has {row} rows, its line 1 says {self.rows}; fetch it again")


class NpzRows:
    """A (rows, labels) matrix as scipy.sparse.save_npz writes it."""

    def __init__(self, path: Path) -> None:
        self.file = open_binary(path)
        self._matrix = _load(path)
        self.rows: int | None = self._matrix.shape[0]
        self.columns: int | None = self._matrix.shape[1]

    def read(self, tally: Tally) -> Iterator[tuple[str, Sequence[int]]]:
        """As LabelRows.read."""
        starts, columns, values = self._matrix.indptr, self._matrix.indices, self._matrix.data
        for row in range(self._matrix.shape[0]):
            place = f"{self.file.path}: row {row}"
            span = slice(starts[row], starts[row + 1])
            pairs = zip(columns[span].tolist(), values[span].tolist(), strict=True)
            yield place, [column for column, value in pairs if counts(float(value), tally, place)]


class Exclusions:
    """The pairs of a filter file: lines of `row label`, 0-based, blank ones skipped."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.file = open_text(path, encoding)
        rows, labels, lines = array("q"), array("q"), array("q")
        for line, text in read_lines(self.file):
            if not text.strip():
                continue
            pair = _HEADER.fullmatch(text)
            if pair is None:
                raise InputError(f"{path}:{line}: is not a row and a label, such as `12 3456`")
            rows.append(int(pair[1]))
            labels.append(int(pair[2]))
            lines.append(line)
        order = np.argsort(np.array(rows, dtype=np.int64), kind="stable").tolist()
        self._rows = array("q", (rows[place] for place in order))
        self._labels = array("q", (labels[place] for place in order))
        self._lines = array("q", (lines[place] for place in order))

    def of(self, row: int, labels: Labels) -> list[str]:
        """The ids excluded for a row. Raises InputError for a label that is out of range."""
        found = range(bisect_left(self._rows, row), bisect_right(self._rows, row))
        return [labels.numbered(self._labels[at], f"{self.file.path}:{self._lines[at]}") for at in found]

    def check_rows(self, rows: int) -> None:
        """Raises InputError when a pair's row is not below `rows`."""
        beyond = bisect_left(self._rows, rows)
        if beyond < len(self._rows):
            row, line = self._rows[beyond], self._lines[beyond]
            raise InputError(f"{self.file.path}:{line}: row {row} is out of range; there are {rows} rows, from 0")


def open_exclusions(place: Place, split: str, options: ImportOptions) -> Exclusions | None:
    """The filter file of a split; None when there is none."""
    path = place.find(prefixed(split, _FILTERS))
    return None if path is None else Exclusions(path, options.encoding)


def entries(tokens: Sequence[str], place: str) -> Iterator[tuple[int, float]]:
    """The (index, value) pairs written as `index:value`. Raises InputError, naming `place`, for anything else."""
    for token in tokens:
        index, _, value = token.partition(":")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{place}: {token[:40]!r} is not an index and a value, such as 12:1.0")
        yield whole_number(index, place), number


def counts(value: float, tally: Tally, place: str) -> bool:
    """Whether an entry of this value makes a label a row's. Raises InputError, naming `place`, when it is none."""
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{place}: {value} is no relevance; values are 0 or more")
    if value == 0:
        tally.zero_values.at(place)
    return value > 0


def whole_number(text: str, place: str) -> int:
    """A number from 0, written in digits. Raises InputError, naming `place`, for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InputError(f"{place}: {text[:40]!r} is not a whole number from 0 on")
    return int(text)


def _load(path: Path) -> csr_matrix:
    """The matrix, its indices checked, its repeated entries left as they are."""
    try:
        # It never unpickles: scipy has NumPy refuse that. The open file is closed here, as a damaged one is not there.
        with path.open("rb") as file:
            matrix = load_npz(file)
        if matrix.format not in ("csr", "csc", "coo") or matrix.ndim != 2:
            raise ValueError(f"a matrix in {matrix.format} form")
        if matrix.format == "coo":
            order = np.argsort(matrix.row, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(matrix.row, minlength=matrix.shape[0]))])
            return csr_matrix((matrix.data[order], matrix.col[order], starts), shape=matrix.shape)
        # An index beyond the shape would be followed into foreign memory.
        matrix.check_format(full_check=True)
        return matrix.tocsr()
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, EOFError, OSError) as error:
        raise _unusable(path, error) from error
    except (zipfile.BadZipFile, zlib.error, IndexError, OverflowError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is no matrix that scipy.sparse.save_npz has written ({first_line(error)})")
