"""An import from beginning to end: a source in any known format becomes a corpus folder, whole or not at all."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from index.errors import InputError
from index.files import new_folder
from index.labels import Label
from training.corpus import SPLITS, Record, json_line
from training.importing.formats import open_source
from training.importing.identifiers import Labels, UniqueIds, clean_fields, without_surrogates
from training.importing.inputs import check_encoding, check_name
from training.importing.place import Place
from training.importing.report import ImportedSplit, ImportReport, origin_note
from training.importing.source import ImportOptions, Row, Source, Tally

_COMPRESSION = 6


def import_corpus(path: Path, out: Path, options: ImportOptions | None = None) -> ImportReport:
    """Read the folder or file `path` and write it as the new folder `out`: splits, labels and a note of origin.

    Rows and labels are streamed; of the labels the ids are kept, of training texts a hash.
    Raises InputError for a place in no known format, a faulty line (file and line named), a source without a training
    record, or fewer than 2 labels; LabelspaceError when `out` is there already or cannot be written.
    """
    options = options or ImportOptions()
    check_encoding(options.encoding)
    check_name(out)
    place = Place(path)
    with new_folder(out) as folder:
        source = open_source(place, options)
        if "train" not in source.splits:
            found = ", ".join(source.splits)
            raise InputError(f"{path}: has no training records, only {found}; see docs/corpus.md for the names")
        report = _write(source, folder, str(path), str(out))
        (folder / "README.md").write_text(origin_note(report), encoding="utf-8")
    return report


def _write(source: Source, folder: Path, path: str, out: str) -> ImportReport:
    tally = Tally()
    labels = Labels(tally, by_text=not source.numbered)
    if source.labels is not None:
        _write_labels(folder, labels.take(source.labels(), numbered=source.numbered))
    seen: set[int] = set()
    splits = []
    for name in SPLITS:
        if name in source.splits:
            records = _records(source.splits[name](labels, tally), tally)
            splits.append(_write_split(folder, name, records, seen))
            if not splits[-1].records:
                raise InputError(
                    f"{path}: has no record with a text or fields for {name}; {'; '.join(tally.lines()) or 'empty'}"
                )
    if source.labels is None:
        _write_labels(folder, labels.grown())
    if len(labels.ids) < 2:
        raise InputError(f"{path}: has fewer than 2 labels ({len(labels.ids)}); a corpus needs at least 2")
    return ImportReport(
        source=path,
        out=out,
        format=source.format,
        files=source.files,
        splits=tuple(splits),
        labels=len(labels.ids),
        labels_without_text=labels.without_text,
        changes=tuple(tally.lines()),
        notes=source.notes,
    )


def _records(rows: Iterable[Row], tally: Tally) -> Iterator[Record]:
    """Records for the rows that say anything; what is excluded is not a label, as the repository's protocol has it."""
    ids = UniqueIds(tally)
    for row in rows:
        fields = clean_fields(row.fields, tally.surrogates, row.place)
        if not row.text.strip() and not fields:
            tally.blank_texts.at(row.place)
            continue
        text = without_surrogates(row.text if row.text.strip() else "", tally.surrogates, row.place)
        labels = dict.fromkeys(row.labels)
        tally.repeated_labels.at(row.place, len(row.labels) - len(labels))
        exclude = dict.fromkeys(row.exclude)
        kept = tuple(label for label in labels if label not in exclude)
        tally.mirrored.at(row.place, len(labels) - len(kept))
        yield Record(ids.give(row.id, row.number, row.place), text, kept, row.group, tuple(exclude), fields)


def _write_split(folder: Path, name: str, records: Iterable[Record], seen: set[int]) -> ImportedSplit:
    """Write a split; `seen` has the hashes of the training texts, and is filled by train."""
    count = unlabelled = pairs = excluded = in_train = 0
    with _packed(folder / f"{name}.jsonl.gz") as file:
        for record in records:
            file.write(json_line(record))
            count += 1
            unlabelled += not record.labels
            pairs += len(record.labels)
            excluded += len(record.exclude)
            if not record.text:
                continue
            if name == "train":
                seen.add(hash(record.text))
            else:
                in_train += hash(record.text) in seen
    return ImportedSplit(name, count, unlabelled, pairs, excluded, in_train)


def _write_labels(folder: Path, labels: Iterable[Label]) -> None:
    with _packed(folder / "labels.jsonl.gz") as file:
        for label in labels:
            file.write(json_line(label))


@contextmanager
def _packed(path: Path) -> Iterator[TextIO]:
    """Gzipped text whose bytes depend on what is written only: no file name and no time in it."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        yield file
