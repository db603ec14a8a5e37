"""What is in a corpus, counted: how large, how skewed, how clean, and how much of it is seen twice."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.corpus import SPLITS, Split, load_corpus, split_path

_BUCKETS = ((0, 0), (1, 1), (2, 4), (5, 9), (10, 99), (100, 999), (1000, None))
_MOST = 10
_ID_CHARACTERS = 34


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one number per record."""

    mean: float
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split. unlabelled: records without labels; textless: records of fields only, which the next two leave out.

    repeated: records whose text an earlier record of the split has; in_train: records of another split whose text a
    training record has; 0 for train itself.
    """

    name: str
    records: int
    unlabelled: int
    labels: Spread
    characters: Spread
    textless: int
    repeated: int
    in_train: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """Labels with `least` to `most` training records; no upper end when `most` is None."""

    least: int
    most: int | None
    labels: int


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label and its number of training records."""

    id: str
    records: int


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """A corpus; in_train: labels with training records; only_held_out: with dev or test ones only; unused: with none.

    without_text: labels known by their examples only; repeated_texts: labels whose text an earlier label has;
    labels_file: False when the corpus has none, so that a label's text is its id.
    """

    folder: str
    splits: tuple[SplitReport, ...]
    labels_file: bool
    labels: int
    in_train: int
    only_held_out: int
    unused: int
    without_text: int
    repeated_texts: int
    frequencies: tuple[Bucket, ...]
    most_frequent: tuple[LabelCount, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON document: dictionaries, lists, strings and numbers."""
        return asdict(self)


def check_corpus(folder: Path) -> CorpusReport:
    """Read every split of a corpus and count. Raises InputError for the first fault, as load_corpus does."""
    names = ["train", *(name for name in SPLITS[1:] if split_path(folder, name))]
    corpus = load_corpus(folder, names)
    counts = {name: _label_counts(split, len(corpus.label_ids)) for name, split in corpus.splits.items()}
    in_train = counts["train"] > 0
    anywhere = np.sum(list(counts.values()), axis=0) > 0
    train_texts = set(corpus.splits["train"].texts)
    texts = [text for text in corpus.label_texts if text]
    return CorpusReport(
        folder=str(folder),
        splits=tuple(_split_report(name, split, train_texts) for name, split in corpus.splits.items()),
        labels_file=split_path(folder, "labels") is not None,
        labels=len(corpus.label_ids),
        in_train=int(in_train.sum()),
        only_held_out=int((anywhere & ~in_train).sum()),
        unused=int((~anywhere).sum()),
        without_text=len(corpus.label_ids) - len(texts),
        repeated_texts=len(texts) - len(set(texts)),
        frequencies=_frequencies(counts["train"]),
        most_frequent=_most_frequent(corpus.label_ids, counts["train"]),
    )


def format_report(report: CorpusReport) -> str:
    """The report as a page of plain text."""
    note = "" if report.labels_file else " (there is no labels file: their ids are their texts)"
    frequencies = [(_range(bucket), bucket.labels) for bucket in report.frequencies]
    most_frequent = [(_short(label.id), label.records) for label in report.most_frequent]
    return "\n".join(
        [
            report.folder,
            "",
            *_table([_split_column(split) for split in report.splits]),
            "",
            f"{report.labels} labels{note}",
            *_facts(
                [
                    ("with training records", report.in_train),
                    ("with dev or test records only", report.only_held_out),
                    ("never used", report.unused),
                    ("without text", report.without_text),
                    ("with the text of an earlier label", report.repeated_texts),
                ]
            ),
            "",
            "labels by number of training records",
            *_facts(frequencies),
            "",
            "most frequent labels, by training records",
            *_facts(most_frequent),
        ]
    )


def _label_counts(split: Split, labels: int) -> NDArray[np.int64]:
    """(labels,) records of each label."""
    return np.bincount(split.relevance.indices, minlength=labels).astype(np.int64)


def _split_report(name: str, split: Split, train_texts: Set[str]) -> SplitReport:
    per_record = np.diff(split.relevance.indptr)
    texts = [text for text in split.texts if text]
    return SplitReport(
        name=name,
        records=len(split),
        unlabelled=int((per_record == 0).sum()),
        labels=_spread(per_record),
        characters=_spread(np.fromiter(map(len, split.texts), dtype=np.int64, count=len(split))),
        textless=len(split) - len(texts),
        repeated=len(texts) - len(set(texts)),
        in_train=0 if name == "train" else sum(text in train_texts for text in texts),
    )


def _spread(values: NDArray[np.integer[Any]]) -> Spread:
    return Spread(float(values.mean()), int(values.min()), int(values.max()))


def _frequencies(counts: NDArray[np.int64]) -> tuple[Bucket, ...]:
    return tuple(
        Bucket(least, most, int(((counts >= least) & (True if most is None else counts <= most)).sum()))
        for least, most in _BUCKETS
    )


def _most_frequent(label_ids: Sequence[str], counts: NDArray[np.int64]) -> tuple[LabelCount, ...]:
    """The labels with most training records; of equally frequent ones those of lower rows."""
    order = np.argsort(-counts, kind="stable")[:_MOST]
    return tuple(LabelCount(label_ids[row], int(counts[row])) for row in order if counts[row])


def _split_column(split: SplitReport) -> list[tuple[str, str]]:
    labels, characters = split.labels, split.characters
    return [
        ("split", split.name),
        ("records", str(split.records)),
        ("without labels", str(split.unlabelled)),
        ("labels per record, mean", f"{labels.mean:.2f}"),
        ("labels per record, range", f"{labels.min} to {labels.max}"),
        ("characters per text, mean", f"{characters.mean:.0f}"),
        ("characters per text, most", str(characters.max)),
        ("without text, of fields only", str(split.textless)),
        ("text of an earlier record", str(split.repeated)),
        ("text of a training record", "-" if split.name == "train" else str(split.in_train)),
    ]


def _table(columns: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """A line for each name, a column for each split, to the right."""
    rows = zip(*columns, strict=True)
    return [f"  {row[0][0]:<34}" + "".join(f"{value:>14}" for _, value in row) for row in rows]


def _facts(facts: Sequence[tuple[str, int]]) -> list[str]:
    return [f"  {name:<34}{value:>14}" for name, value in facts]


def _range(bucket: Bucket) -> str:
    if bucket.most is None:
        return f"{bucket.least} or more"
    return str(bucket.least) if bucket.least == bucket.most else f"{bucket.least} to {bucket.most}"


def _short(label: str) -> str:
    return label if len(label) <= _ID_CHARACTERS else label[: _ID_CHARACTERS - 1] + "…"
