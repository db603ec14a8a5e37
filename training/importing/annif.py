"""Annif's document corpora: short texts in TSV or CSV, whole documents in a folder, beside a subject vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.delimited import read_columns
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text, peek, read_lines, read_text
from training.importing.place import Place, by_role, role
from training.importing.source import ImportOptions, Row, Source, Tally
from training.importing.vocabulary import bare_uri, open_vocabulary, read_vocabulary

TSV, CSV, FOLDER = "annif-tsv", "annif-csv", "annif-folder"
LOOKED_FOR = {
    TSV: "a .tsv whose lines are `text TAB <uri> <uri>`",
    CSV: "a .csv with the columns text and subject_uris",
    FOLDER: "*.txt beside *.tsv or *.key, here or in train/",
}

_Rows = Callable[[Labels, Tally], Iterator[Row]]
_CSV_COLUMNS = ["text", "subject_uris"]
_SUBJECT = re.compile(r'<(?P<uri>[^<>]*)>|"(?P<label>(?:[^"]|"")*)"|(?P<bare>\S+)')
_SUBJECT_FILES = (".tsv", ".key")


def matches_tsv(place: Place, options: ImportOptions) -> bool:
    """Whether there is a TSV file of texts and subjects that could be the training one."""
    return "train" in by_role(place, _tsv_files(place))


def matches_csv(place: Place, options: ImportOptions) -> bool:
    """Whether there is a CSV file with Annif's columns that could be the training one."""
    return "train" in by_role(place, _csv_files(place))


def matches_folder(place: Place, options: ImportOptions) -> bool:
    """Whether there is a folder of documents with their subject files."""
    return "train" in _folders(place)


def open_tsv(place: Place, options: ImportOptions) -> Source:
    """Rows of the TSV files. Raises InputError when there are none."""
    return _short_texts(place, options, TSV, _tsv_files(place))


def open_csv(place: Place, options: ImportOptions) -> Source:
    """Rows of the CSV files. Raises InputError when there are none."""
    return _short_texts(place, options, CSV, _csv_files(place))


def open_folder(place: Place, options: ImportOptions) -> Source:
    """Rows of the documents in the folders, in order of their names. Raises InputError when there are none."""
    folders = _folders(place)
    if not folders:
        raise InputError(f"{place.path}: has nothing in this format; looked for {LOOKED_FOR[FOLDER]}")
    files: list[InputFile] = []
    splits: dict[str, _Rows] = {}
    for split in SPLITS:
        if split not in folders:
            continue
        documents = []
        for text, subjects in _documents(folders[split]):
            document = open_text(text, options.encoding)
            listed = None if subjects is None else open_text(subjects, options.encoding)
            documents.append((document, listed))
            files += [document, *([listed] if listed else [])]
        splits[split] = partial(_document_rows, documents)
    used = {file.path for file in files}
    others = [path for path in place.ending(".tsv", ".csv") if path not in used]
    return _source(place, options, FOLDER, files, splits, others)


def _short_texts(place: Place, options: ImportOptions, name: str, paths: Sequence[Path]) -> Source:
    if not paths:
        raise InputError(f"{place.path}: has nothing in this format; looked for {LOOKED_FOR[name]}")
    read = _csv_rows if name == CSV else _tsv_rows
    files: list[InputFile] = []
    splits: dict[str, _Rows] = {}
    found = by_role(place, paths)
    for split in SPLITS:
        if split in found:
            files.append(open_text(found[split], options.encoding))
            splits[split] = partial(read, files[-1])
    others = [path for path in place.ending(".tsv", ".csv") if path not in paths]
    return _source(place, options, name, files, splits, others)


def _source(
    place: Place,
    options: ImportOptions,
    name: str,
    files: Sequence[InputFile],
    splits: dict[str, _Rows],
    others: Sequence[Path],
) -> Source:
    """With the vocabulary that was given, else the one among these other files."""
    vocabularies = [path for path in others if _is_vocabulary(path)]
    if options.labels_file is None and len(vocabularies) > 1:
        names = ", ".join(path.name for path in vocabularies)
        raise InputError(f"{place.path}: has more than one vocabulary ({names}); choose with --labels-file")
    path = options.labels_file or next(iter(vocabularies), None)
    if path is None:
        note = "there is no vocabulary: the labels are those that the records name"
        return Source(name, tuple(files), splits, None, notes=(note,))
    vocabulary = open_vocabulary(path, options)
    return Source(name, (*files, vocabulary), splits, partial(read_vocabulary, vocabulary, options))


def _tsv_files(place: Place) -> list[Path]:
    return [path for path in place.ending(".tsv") if _subjects_after_tab(peek(path))]


def _csv_files(place: Place) -> list[Path]:
    return [path for path in place.ending(".csv") if set(_CSV_COLUMNS) <= set(_header(path))]


def _header(path: Path) -> list[str]:
    return [cell.strip().strip('"') for cell in peek(path).split(",")]


def _subjects_after_tab(line: str) -> bool:
    """Whether a line is `text TAB <uri>` or `text TAB "label"`, and not `<uri> TAB label`."""
    text, _, subjects = line.partition("\t")
    return not text.strip().startswith("<") and subjects.strip().startswith(("<", '"', "http://", "https://", "urn:"))


def _is_vocabulary(path: Path) -> bool:
    if path.name.removesuffix(".gz").endswith(".csv"):
        return "uri" in _header(path)
    return role(path) == "labels" or peek(path).startswith("<")


def _folders(place: Place) -> dict[str, Path]:
    """split -> folder of documents: those named so, or the place itself for training."""
    named = {role(folder): folder for folder in place.folders() if _has_documents(folder)}
    found = {split: named[split] for split in SPLITS if split in named}
    if place.file is None and "train" not in found and _has_documents(place.path):
        found["train"] = place.path
    return found


def _has_documents(folder: Path) -> bool:
    return any(subjects is not None for _, subjects in _documents(folder))


def _documents(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Every text, in order of names, with its subject file; .tsv goes before .key, as in Annif."""
    names = {path.name for path in folder.iterdir()}
    for name in sorted(name for name in names if name.endswith(".txt")):
        stem = name.removesuffix(".txt")
        subjects = next((stem + ending for ending in _SUBJECT_FILES if stem + ending in names), None)
        yield folder / name, None if subjects is None else folder / subjects


def _tsv_rows(file: InputFile, labels: Labels, tally: Tally) -> Iterator[Row]:
    for line, text in read_lines(file):
        place = f"{file.path}:{line}"
        query, tab, subjects = text.partition("\t")
        if tab:
            yield Row(place, line - 1, None, query, _subjects(subjects, place, labels, tally))
        elif text.strip():
            tally.without_tab.at(place)


def _csv_rows(file: InputFile, labels: Labels, tally: Tally) -> Iterator[Row]:
    named = "document_id" in _header(file.path)
    columns = [*_CSV_COLUMNS, "document_id"] if named else _CSV_COLUMNS
    for number, (place, cells) in enumerate(read_columns(file, columns)):
        own = cells[2] if named else None
        yield Row(place, number, own, cells[0], _subjects(cells[1], place, labels, tally))


def _document_rows(
    documents: Sequence[tuple[InputFile, InputFile | None]], labels: Labels, tally: Tally
) -> Iterator[Row]:
    for number, (document, subjects) in enumerate(documents):
        place = str(document.path)
        found: list[str] = []
        if subjects is None:
            tally.without_subjects.at(place)
        else:
            for line, text in read_lines(subjects):
                if text.strip():
                    found += _listed_subject(text, f"{subjects.path}:{line}", labels, tally)
        yield Row(place, number, document.path.stem, read_text(document), found)


def _listed_subject(line: str, place: str, labels: Labels, tally: Tally) -> list[str]:
    """The label of a line of a subject file: `<uri> TAB label`, or the label alone."""
    cells = [cell.strip() for cell in line.split("\t")]
    if re.fullmatch(r"<[^<>]*>", cells[0]):
        return _known(bare_uri(cells[0]), cells[1] if len(cells) > 1 else "", place, labels, tally)
    return _known_text(cells[0], place, labels, tally)


def _subjects(text: str, place: str, labels: Labels, tally: Tally) -> list[str]:
    """The labels in `<uri> "label" uri`."""
    found: list[str] = []
    for match in _SUBJECT.finditer(text):
        if match["label"] is not None:
            found += _known_text(match["label"].replace('""', '"').strip(), place, labels, tally)
        else:
            found += _known((match["uri"] or match["bare"] or "").strip(), "", place, labels, tally)
    return found


def _known_text(text: str, place: str, labels: Labels, tally: Tally) -> list[str]:
    """The label of this text; where no vocabulary has any, one whose id is its text."""
    if not labels.fixed:
        return _known(text, text, place, labels, tally)
    known = labels.by_text(text)
    if known is None:
        tally.unknown_labels.at(place)
    return [] if known is None else [known]


def _known(name: str, text: str, place: str, labels: Labels, tally: Tally) -> list[str]:
    """The label of this id as a list, empty where the vocabulary has none: Annif leaves such out, too."""
    known = labels.named(name, text, place)
    if known is None:
        tally.unknown_labels.at(place)
    return [] if known is None else [known]
