"""A smaller corpus out of a larger one, for comparisons that need many runs."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from index.files import new_folder
from training.corpus import json_line, read_labels, read_records, split_path

DEV_ROWS = 3000


def thinned_corpus(folder: Path, out: Path, rows: int) -> Path:
    """`rows` records of train and 3,000 of dev, drawn with seed 0, and the labels that they carry; kept in `out`.

    Fewer than 20,000 labels and examples are searched exactly, so that no index is built and none decides anything.
    """
    if out.exists():
        return out
    random = np.random.default_rng(0)
    used: set[str] = set()
    with new_folder(out) as beside:
        for split, most in (("train", rows), ("dev", DEV_ROWS)):
            path = split_path(folder, split)
            assert path is not None, f"{folder} has no {split} split"
            records = list(read_records(path))
            kept = np.sort(random.permutation(len(records))[:most])
            used.update(label for row in kept for label in records[row].labels)
            lines = "".join(json_line(records[row]) for row in kept)
            (beside / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
        path = split_path(folder, "labels")
        assert path is not None, f"{folder} has no labels file"
        lines = "".join(json_line(label) for label in read_labels(path) if label.id in used)
        (beside / "labels.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
    return out
