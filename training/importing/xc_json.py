"""The Extreme Classification repository's JSON lines: texts with the numbers of their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from index.errors import InputError
from training.corpus import SPLITS
from training.importing.identifiers import Labels
from training.importing.inputs import InputFile, open_text, peek
from training.importing.label_list import open_label_list, read_label_list
from training.importing.matrix import Exclusions, counts, open_exclusions
from training.importing.objects import read_objects, text_of, uid_of
from training.importing.place import Place, prefixed
from training.importing.source import ImportOptions, Row, Source, Tally

NAME = "xc-json"
LOOKED_FOR = "trn.json, trn.jsonl or trn.raw.json with lbl.json, lbl.jsonl or Yf.txt"

_RECORDS = ("{}.json", "{}.jsonl", "{}.raw.json", "{}.raw.jsonl")
_KEYS = ('"target_ind"', '"title"', '"content"')
_LABELS = ("lbl.json", "lbl.jsonl", "lbl.raw.json", "lbl.raw.jsonl", "Yf.txt", "Y.txt", "lbl.raw.txt")


def matches(place: Place, options: ImportOptions) -> bool:
    """Whether there are training records that have this format's keys."""
    path = place.find(prefixed("train", _RECORDS)) if place.file is None else None
    # A corpus of our own has a train.jsonl too.
    return path is not None and any(key in peek(path) for key in _KEYS)


def open_source(place: Place, options: ImportOptions) -> Source:
    """The rows of all splits that are there. Raises InputError when there are none, or no list of labels."""
    files: list[InputFile] = []
    splits: dict[str, Callable[[Labels, Tally], Iterator[Row]]] = {}
    for split in SPLITS:
        path = place.find(prefixed(split, _RECORDS))
        if path is None:
            continue
        file = open_text(path, options.encoding)
        exclusions = open_exclusions(place, split, options)
        files += [file, *([exclusions.file] if exclusions else [])]
        splits[split] = partial(_rows, file, exclusions)
    if not splits:
        raise InputError(f"{place.path}: has no records; looked for {LOOKED_FOR}, each plain or as .gz")
    listed = open_label_list(place, _LABELS, options)
    if listed is None:
        raise InputError(f"{place.path}: has no label list; looked for {', '.join(_LABELS)}; or give --labels-file")
    files.append(listed)
    return Source(NAME, tuple(files), splits, partial(read_label_list, listed), numbered=True)


def _rows(file: InputFile, exclusions: Exclusions | None, labels: Labels, tally: Tally) -> Iterator[Row]:
    number = -1
    for number, (place, value) in enumerate(read_objects(file)):
        found = [labels.numbered(label, place) for label in _targets(value, place, tally)]
        exclude = exclusions.of(number, labels) if exclusions else ()
        yield Row(place, number, uid_of(value, place), text_of(value, place), found, exclude)
    if exclusions:
        exclusions.check_rows(number + 1)


def _targets(value: dict[str, Any], place: str, tally: Tally) -> list[int]:
    """The numbers of a record's labels, without those whose relevance is 0."""
    if "target_ind" not in value:
        raise InputError(f"{place}: has no target_ind; give a list of label numbers, [] when there are none")
    targets, relevances = value["target_ind"], value.get("target_rel")
    if not isinstance(targets, list) or not all(type(target) is int and target >= 0 for target in targets):
        raise InputError(f"{place}: target_ind must be a list of whole numbers from 0 on")
    if relevances is None:
        return targets
    if not isinstance(relevances, list) or not all(type(value) in (int, float) for value in relevances):
        raise InputError(f"{place}: target_rel must be a list of numbers")
    if len(relevances) != len(targets):
        raise InputError(f"{place}: has {len(targets)} in target_ind, {len(relevances)} in target_rel; give one each")
    return [target for target, value in zip(targets, relevances, strict=True) if counts(value, tally, place)]
