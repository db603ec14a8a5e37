"""A corpus without some of its labels: what a model that has never met them is trained on."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from index.files import new_folder
from index.labels import Label
from training.corpus import Record, hold_out, json_line, load_corpus, read_labels, read_records, split_path

SHARE = 0.1
DEV_SHARE = 0.05


def hidden_labels(counts: Counter[str], share: float = SHARE, seed: int = 0) -> list[str]:
    """About `share` of the labels that have a training record, drawn evenly over their frequencies.

    The labels in order of frequency are cut into runs of 1 / share, and one is drawn of each.
    """
    ordered = sorted((label for label, count in counts.items() if count), key=lambda label: (-counts[label], label))
    run = round(1 / share)
    random = np.random.default_rng(seed)
    starts = range(0, len(ordered), run)
    return sorted(ordered[start + int(random.integers(min(run, len(ordered) - start)))] for start in starts)


def whole_corpus(folder: Path, out: Path) -> Path:
    """The corpus in `out`, with a dev split: its own, or a part of train held out by group as training would."""
    if out.exists():
        return out
    splits = {
        split: list(read_records(path)) for split in ("train", "dev", "test") if (path := split_path(folder, split))
    }
    if "dev" not in splits:
        kept, held = hold_out(load_corpus(folder, ["train"]).splits["train"], DEV_SHARE, 0)
        train = splits["train"]
        splits["train"], splits["dev"] = [train[row] for row in kept], [train[row] for row in held]
    path = split_path(folder, "labels")
    assert path is not None, f"{folder} has no labels file"
    with new_folder(out) as beside:
        _write(beside / "labels.jsonl.gz", read_labels(path))
        for split, records in splits.items():
            _write(beside / f"{split}.jsonl.gz", iter(records))
    return out


def reduced_corpus(whole: Path, out: Path, share: float = SHARE) -> Path:
    """`whole` without the hidden labels, in `out`: all records stay, with the labels that are left."""
    if out.exists():
        return out
    hidden = set(hidden_labels(counts_of(whole), share))
    with new_folder(out) as beside:
        for path in sorted(whole.glob("*.jsonl.gz")):
            if path.name == "labels.jsonl.gz":
                _write(beside / path.name, (label for label in read_labels(path) if label.id not in hidden))
            else:
                _write(beside / path.name, (_without(record, hidden) for record in read_records(path)))
    return out


def counts_of(whole: Path) -> Counter[str]:
    """How many training records each label has."""
    path = split_path(whole, "train")
    assert path is not None, f"{whole} has no train split"
    return Counter(label for record in read_records(path) for label in record.labels)


def _without(record: Record, hidden: set[str]) -> Record:
    labels = tuple(label for label in record.labels if label not in hidden)
    return replace(record, labels=labels, exclude=tuple(label for label in record.exclude if label not in hidden))


def _write(path: Path, rows: Iterator[Record] | Iterator[Label]) -> None:
    path.write_bytes(gzip.compress("".join(json_line(row) for row in rows).encode(), 1))
