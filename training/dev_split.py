"""The held-out queries of a corpus as a bundle keeps them: records with their texts, at most a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from pathlib import Path

from index.dev_queries import MOST_DEV, DevQuery
from index.errors import InputError
from index.field_spec import FieldSpec
from training.corpus import Record, hash_fraction, hold_out, load_corpus, read_records, split_path
from training.dataset import HELD_BY


def dev_split(folder: Path, fields: Sequence[FieldSpec] = (), held: float | None = None) -> list[DevQuery]:
    """At most 1,000 of the dev split's records, the same every time; of `fields` what they say.

    held: the share of train that a run holds out where the corpus has no dev split; None: it has to have one.
    Raises InputError when the corpus cannot be read.
    """
    path = split_path(folder, "dev")
    if path is not None:
        drawn = nsmallest(MOST_DEV, read_records(path, fields), key=_drawn_by)
        return [DevQuery(record.text, record.fields, record.labels, record.exclude) for record in drawn]
    if held is None:
        raise InputError(f"{folder}: has no dev split (dev.jsonl); give a corpus that has one, or a file of queries")
    corpus = load_corpus(folder, ["train"], fields)
    train, ids = corpus.splits["train"], corpus.label_ids
    _, rows = hold_out(train, held, HELD_BY)
    rows_drawn = nsmallest(MOST_DEV, rows.tolist(), key=lambda row: hash_fraction(train.ids[row]))
    return [
        DevQuery(
            train.texts[row],
            None if train.fields is None else train.fields[row],
            tuple(ids[label] for label in train.relevance[row].indices.tolist()),
            tuple(ids[label] for label in train.excluded[row].indices.tolist()),
        )
        for row in rows_drawn
    ]


def _drawn_by(record: Record) -> float:
    return hash_fraction(record.id)
