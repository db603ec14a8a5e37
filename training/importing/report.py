"""What an import did: its figures, as lines for the caller and as the note of origin in the corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from training.importing.inputs import InputFile

_MOST_FILES = 20


@dataclass(frozen=True, slots=True)
class ImportedSplit:
    """One split: its records, those without labels, its (record, label) pairs, and those to exclude.

    in_train: records whose text a training record has; 0 for train itself.
    """

    name: str
    records: int
    unlabelled: int
    pairs: int
    excluded: int
    in_train: int


@dataclass(frozen=True, slots=True)
class ImportReport:
    """An import; changes: what was left out or altered, counted; notes: what else the reader should know."""

    source: str
    out: str
    format: str
    files: tuple[InputFile, ...]
    splits: tuple[ImportedSplit, ...]
    labels: int
    labels_without_text: int
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON document: dictionaries, lists, strings and numbers."""
        files = [{**asdict(file), "path": str(file.path)} for file in self.files]
        return {**asdict(self), "files": files}


def format_import(report: ImportReport) -> str:
    """The report as lines of plain text."""
    labels = f"labels: {report.labels}, {report.labels_without_text} without text"
    head = f"{report.out}: from {report.source} ({report.format})"
    return "\n".join([head, *_facts(report), labels, *_remarks(report)])


def origin_note(report: ImportReport) -> str:
    """The README.md of the corpus: where it is from, what was read, and what was changed."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    remarks = _remarks(report) or ["nothing was changed"]
    return "\n".join(
        [
            f"# {Path(report.source).absolute().name}",
            "",
            f"Imported by `labelspace corpus import` from `{report.source}` (format {report.format}) on {now}.",
            "",
            *(f"* {fact}" for fact in _facts(report)),
            f"* labels: {report.labels}, {report.labels_without_text} without text",
            "",
            "## Remarks",
            "",
            *(f"* {remark}" for remark in remarks),
            "",
            "## Read",
            "",
            "| file | bytes | encoding | SHA-256 |",
            "|---|---|---|---|",
            *_table(report.files),
            "",
            "The texts and labels are their publisher's and under the licence given there.",
            "",
        ]
    )


def _facts(report: ImportReport) -> list[str]:
    return [_fact(split) for split in report.splits]


def _fact(split: ImportedSplit) -> str:
    parts = [
        f"{split.name}: {split.records} records",
        f"{split.unlabelled} without labels",
        f"{split.pairs} labels given",
    ]
    if split.excluded:
        parts.append(f"{split.excluded} excluded")
    if split.in_train:
        parts.append(f"{split.in_train} with the text of a training record")
    return ", ".join(parts)


def _remarks(report: ImportReport) -> list[str]:
    other = [file for file in report.files if file.malformed is not None]
    encodings = [
        f"{file.path}: read as {file.encoding}, line {file.malformed} is not UTF-8" for file in other[:_MOST_FILES]
    ]
    if len(other) > _MOST_FILES:
        encodings.append(f"{len(other) - _MOST_FILES} more files are not UTF-8 and were read as {other[0].encoding}")
    return [*report.changes, *report.notes, *encodings]


def _table(files: Sequence[InputFile]) -> list[str]:
    """A row for each file; of a folder with many, one row with the hash of their `hash  name` lines."""
    lines = []
    for folder, group in groupby(files, key=lambda file: file.path.parent):
        members = list(group)
        if len(members) <= _MOST_FILES:
            lines += [f"| {file.path} | {file.size} | {file.encoding or '-'} | {file.sha256} |" for file in members]
            continue
        sums = "".join(f"{file.sha256}  {file.path.name}\n" for file in members)
        digest = hashlib.sha256(sums.encode("utf-8")).hexdigest()
        size = sum(file.size for file in members)
        lines.append(f"| {folder}/ ({len(members)} files) | {size} | - | {digest} (of their sha256sum lines) |")
    return lines
