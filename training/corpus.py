"""The corpus folder: JSONL records and labels, read and checked line by line, kept as texts and a relevance matrix."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from index.errors import InputError, json_kind
from index.facets import fields_text, filterable
from index.field_spec import FieldSpec
from index.fields import Fields, fields_read
from index.labels import Label, check_id
from index.packed import PackedStrings
from index.strict_json import without_duplicates

SPLITS = ("train", "dev", "test")
_LARGEST_GROUP = 0.02

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Record:
    """A query with the ids of its labels, each once; records of one group stay on one side of a split.

    exclude: ids that are neither right nor wrong for this query, such as the mirror of a pair that was trained on.
    text: empty for a record that its fields alone describe. fields: those that were asked for and say something; None
    without any.
    """

    id: str
    text: str
    labels: tuple[str, ...]
    group: str | None = None
    exclude: tuple[str, ...] = ()
    fields: Fields | None = None


_Item = TypeVar("_Item", Record, Label)


@dataclass(frozen=True)
class Split:
    """Queries in file order; relevance: (rows, labels) CSR of float32, 1 where the query has the label.

    excluded: CSR like relevance, 1 where the label is taken out of the query's predictions before the best are
    counted; no entry is in both. fields: of each query, those that were asked for; None where none were.
    """

    ids: list[str]
    texts: list[str]
    groups: list[str | None]
    relevance: csr_matrix
    excluded: csr_matrix
    fields: list[Fields | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corpus:
    """Labels in row order and the splits that were asked for; label_fields as Split.fields.

    kept_fields: of each label all fields that a bundle keeps, whatever was asked for, as `index.facets.fields_text`
    writes them; None where no label has any.
    """

    folder: Path
    label_ids: list[str]
    label_texts: list[str]
    splits: Mapping[str, Split]
    label_fields: list[Fields | None] | None = None
    kept_fields: PackedStrings | None = None


def split_path(folder: Path, name: str) -> Path | None:
    """`name`.jsonl or `name`.jsonl.gz in `folder`; None when neither is there.

    Raises InputError when both are.
    """
    found = [path for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if path.exists()]
    if len(found) > 1:
        raise InputError(f"{folder}: has both {name}.jsonl and {name}.jsonl.gz; remove one of them")
    return found[0] if found else None


def read_records(path: Path, fields: Sequence[FieldSpec] = ()) -> Iterator[Record]:
    """The records of one file, in its order, with these of their fields; record n is on line n.

    Raises InputError naming file and line for the first that is not as docs/corpus.md says.
    """
    return _read(path, lambda value: _record(value, fields))


def read_labels(path: Path, fields: Sequence[FieldSpec] = ()) -> Iterator[Label]:
    """The labels of one file, in its order, with these of their fields; label n is on line n; the text is empty where
    the file has none.

    Raises InputError naming file and line for the first that is not as docs/corpus.md says.
    """
    return _read(path, lambda value: _label(value, fields))


def load_corpus(folder: Path, splits: Sequence[str], fields: Sequence[FieldSpec] = ()) -> Corpus:
    """The labels and these splits of a corpus folder, and of both the fields that are named.

    Label rows follow the labels file. Without one they follow the first appearance in train, dev and test, which are
    then all read, whatever was asked for, so that a label has the same row every time; its text is its id.
    Raises InputError for a missing or empty file, a faulty line, an unknown label id, or fewer than 2 labels.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give a corpus folder, with train.jsonl in it")
    labels_path = split_path(folder, "labels")
    kept = _KeptFields()
    labels = list(_read(labels_path, lambda value: kept.of(value, _label(value, fields)))) if labels_path else []
    if labels_path and not labels:
        raise InputError(f"{labels_path}: has no labels; write one a line, or remove the file")
    rows = {label.id: row for row, label in enumerate(labels)}
    names = list(splits)
    if not labels_path:
        names = ["train", *(name for name in SPLITS[1:] if split_path(folder, name)), *splits]
    paths = {name: _existing(folder, name) for name in dict.fromkeys(names)}
    read = {name: _split(path, rows, fields, grow=not labels_path) for name, path in paths.items()}
    if len(rows) < 2:
        raise InputError(f"{folder}: has fewer than 2 labels ({len(rows)}); a corpus needs at least 2")
    label_texts = [label.text for label in labels] if labels_path else list(rows)
    found = {name: _widened(read[name], len(rows)) for name in splits}
    label_fields: list[Fields | None] = [label.fields for label in labels] if labels_path else [None] * len(rows)
    return Corpus(folder, list(rows), label_texts, found, label_fields if fields else None, kept.packed())


def json_line(row: Record | Label) -> str:
    """The line of a corpus file that reads back as `row`; what is empty and optional is left out."""
    value: dict[str, object] = {"id": row.id}
    if row.text or not row.fields:
        value["text"] = row.text
    if row.fields:
        value["fields"] = row.fields
    if isinstance(row, Record):
        value["labels"] = row.labels
        if row.group is not None:
            value["group"] = row.group
        if row.exclude:
            value["exclude"] = row.exclude
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def hold_out(split: Split, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers (kept, held out), each ascending: about `share` of the groups are held out, drawn by their hash.

    A record without a group is its own. A group that would be more than a fiftieth of what is held out is kept, so
    that no family of near copies decides what is chosen on the rest. Both sides have rows unless there is one group
    only: then all are kept.
    """
    pairs = zip(split.ids, split.groups, strict=True)
    keys = [f"id {name}" if group is None else f"group {group}" for name, group in pairs]
    place = {key: hash_fraction(f"{seed} {key}") for key in dict.fromkeys(keys)}
    largest = max(1.0, share * len(keys) * _LARGEST_GROUP)
    held = {key for key, size in Counter(keys).items() if place[key] < share and size <= largest}
    if len(place) < 2:
        held = set()
    elif not held:
        held = {min(place, key=place.__getitem__)}
    elif len(held) == len(place):
        held.remove(max(place, key=place.__getitem__))
    out = np.fromiter((key in held for key in keys), dtype=np.bool_, count=len(keys))
    return np.flatnonzero(~out), np.flatnonzero(out)


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that only the key decides."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


def _existing(folder: Path, name: str) -> Path:
    path = split_path(folder, name)
    if path is None:
        raise InputError(f"{folder}: has no {name} split; looked for {name}.jsonl and {name}.jsonl.gz")
    return path


def _split(path: Path, rows: dict[str, int], fields: Sequence[FieldSpec], *, grow: bool) -> Split:
    """One file's records; `grow` gives an unknown label id the next row instead of refusing it."""
    ids: list[str] = []
    texts: list[str] = []
    groups: list[str | None] = []
    said: list[Fields | None] | None = [] if fields else None
    relevant, excluded = _Rows(), _Rows()
    for line, record in enumerate(read_records(path, fields), 1):
        for matrix, labels in ((relevant, record.labels), (excluded, record.exclude)):
            for label in labels:
                row = rows.setdefault(label, len(rows)) if grow else rows.get(label)
                if row is None:
                    raise InputError(f"{path}:{line}: label id {label!r} is not in the labels file; add it there")
                matrix.columns.append(row)
            matrix.starts.append(len(matrix.columns))
        ids.append(record.id)
        texts.append(record.text)
        groups.append(record.group)
        if said is not None:
            said.append(record.fields)
    if not ids:
        raise InputError(f"{path}: has no records; write one a line")
    return Split(ids, texts, groups, relevant.matrix(len(rows)), excluded.matrix(len(rows)), said)


class _Rows:
    """A matrix of ones that grows by rows."""

    def __init__(self) -> None:
        self.starts, self.columns = array("q", [0]), array("q")

    def matrix(self, columns: int) -> csr_matrix:
        """(rows, columns) CSR of float32."""
        ones = np.ones(len(self.columns), dtype=np.float32)
        entries = (ones, np.array(self.columns, dtype=np.int64), np.array(self.starts, dtype=np.int64))
        matrix = csr_matrix(entries, shape=(len(self.starts) - 1, columns))
        matrix.sort_indices()
        return matrix


def _widened(split: Split, labels: int) -> Split:
    """The split with a column for every label: without a labels file, later splits may have added some."""
    for matrix in (split.relevance, split.excluded):
        matrix.resize((len(split), labels))
    return split


def _read(path: Path, parse: Callable[[dict[str, Any]], _Item]) -> Iterator[_Item]:
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        try:
            item = parse(_object(line))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        first = seen.setdefault(item.id, number)
        if first != number:
            raise InputError(f"{path}:{number}: the id {item.id!r} is already on line {first}; give each its own")
        yield item


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines, unpacked; an empty last line is left out, any other blank one is the reader's to refuse."""
    number = 0
    waiting: bytes | None = None
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if waiting is not None:
                    yield waiting
                waiting = line
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: is damaged or no gzip file (after line {number}: {error}); write it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from error
    if waiting is not None and waiting.strip():
        yield waiting


def _object(line: bytes) -> dict[str, Any]:
    """One JSON object. Raises InputError, as everything below does, for _read to add file and line."""
    if not line.strip():
        raise InputError("is blank; write one JSON object a line")
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=without_duplicates)
        # Decoded UTF-8 has no surrogates of its own; only an escape can bring one in.
        if _SURROGATE.search(line):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not valid UTF-8 (byte {error.start + 1}); write the file as UTF-8") from error
    except UnicodeEncodeError as error:
        raise InputError("has a lone surrogate such as \\ud800 in a string; write whole characters") from error
    except json.JSONDecodeError as error:
        raise InputError(f"is not valid JSON ({error.msg}, character {error.pos + 1}); write one object") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is JSON that cannot be taken ({error}); write one plain object") from error
    if not isinstance(value, dict):
        raise InputError(f"is {json_kind(value)}; write one JSON object a line")
    return value


def _record(value: dict[str, Any], fields: Sequence[FieldSpec]) -> Record:
    said = _fields(value, fields)
    text = _record_text(value)
    if "labels" not in value:
        raise InputError("has no labels; give a list of label ids, [] when there are none")
    labels = _label_ids(value, "labels")
    exclude = () if value.get("exclude") is None else _label_ids(value, "exclude")
    both = set(labels).intersection(exclude)
    if both:
        raise InputError(f"label id {min(both)!r} is in both labels and exclude; keep it in one of them")
    group = None if value.get("group") is None else _string(value, "group")
    if group is not None and not group.strip():
        raise InputError("group is blank; give it a name or leave it out")
    return Record(_checked_id(_string(value, "id"), "id"), text, labels, group, exclude, said)


class _KeptFields:
    """The fields of labels that are there to be shown and filtered by, gathered label by label as one run of bytes."""

    def __init__(self) -> None:
        self._data, self._offsets = bytearray(), array("q", [0])

    def of(self, value: dict[str, Any], label: Label) -> Label:
        """The label itself, with the fields of its line taken down: those that the model reads, and of the others all
        that can be filtered by."""
        fields = {**(filterable(value.get("fields")) or {}), **(label.fields or {})}
        self._data += fields_text(fields).encode()
        self._offsets.append(len(self._data))
        return label

    def packed(self) -> PackedStrings | None:
        """None where nothing was taken down."""
        if not self._data:
            return None
        return PackedStrings(np.frombuffer(bytes(self._data), dtype=np.uint8), np.array(self._offsets, dtype=np.int64))


def _record_text(value: dict[str, Any]) -> str:
    """The text, empty where the record has fields only: any of them counts, also one that was not asked for."""
    text = "" if value.get("text") is None else _string(value, "text")
    if text.strip():
        return text
    if not any(one is not None and one != [] for one in (value.get("fields") or {}).values()):
        wrong = "has no text" if "text" not in value else "text is null" if value["text"] is None else "text is blank"
        raise InputError(f"{wrong}, and no field says anything; give the record a text or fields, or leave it out")
    return ""


def _label_ids(value: dict[str, Any], key: str) -> tuple[str, ...]:
    """The ids of a list, each once."""
    found = value[key]
    if not isinstance(found, list):
        raise InputError(f"{key} must be a list of label ids, is {json_kind(found)}")
    return tuple(dict.fromkeys(_checked_id(label, "label id") for label in found))


def _label(value: dict[str, Any], fields: Sequence[FieldSpec]) -> Label:
    said = _fields(value, fields)
    text = "" if value.get("text") is None else _string(value, "text")
    return Label(_checked_id(_string(value, "id"), "id"), text if text.strip() else "", said)


def _fields(value: dict[str, Any], names: Sequence[FieldSpec]) -> Fields | None:
    found = value.get("fields")
    if found is not None and not isinstance(found, dict):
        raise InputError(f"fields must be an object, is {json_kind(found)}")
    said = fields_read(found, names) if names else None
    return None if said is None else {name: _shared(one) for name, one in said.items()}


def _shared(value: object) -> object:
    """An equal value whose strings are the same objects as those of other records: most values are in many records."""
    if type(value) is str:
        return sys.intern(value)
    return [_shared(one) for one in value] if isinstance(value, list) else value


def _string(value: dict[str, Any], key: str) -> str:
    if key not in value:
        raise InputError(f"has no {key}; give it one, as a string")
    found = value[key]
    if not isinstance(found, str):
        raise InputError(f"{key} must be a string, is {json_kind(found)}")
    return found


def _checked_id(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a string, is {json_kind(value)}")
    return check_id(value, name)
