"""A corpus split against a bundle: metrics of what will really be served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from index.errors import InputError
from index.snapshot import Snapshot
from training.corpus import load_corpus
from training.metrics import PROPENSITY_A, PROPENSITY_B, Judged, inverse_propensity

DEPTH = 100
_BLOCK = 256
_BUCKETS = ((1, 1), (2, 4), (5, 9), (10, 99), (100, 999), (1000, None))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Labels with `least` to `most` (None: no end) training rows; figures in percent over the rows that carry any."""

    least: int
    most: int | None
    labels: int
    rows: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures in percent. labels: of the bundle; unseen: on positives that no training row carries."""

    split: str
    bundle: str
    rows: int
    rows_without_labels: int
    labels: int
    metrics: dict[str, float]
    unseen: dict[str, float]
    unseen_rows: int
    buckets: list[Bucket]
    a: float
    b: float

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["propensity"] = {"A": values.pop("a"), "B": values.pop("b")}
        return values


def evaluate(
    snapshot: Snapshot,
    folder: Path,
    *,
    split: str = "test",
    a: float = PROPENSITY_A,
    b: float = PROPENSITY_B,
    advance: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    """Predict every row of a split with the snapshot and judge it by the corpus' labels and train counts.

    Rows without labels are counted and left out of the averages. Raises InputError when the corpus has no such split,
    no judged row, or a relevant label that the snapshot does not know.
    """
    corpus = load_corpus(folder, list(dict.fromkeys(["train", split])))
    train, wanted = corpus.splits["train"], corpus.splits[split]
    rows = np.flatnonzero(np.diff(wanted.relevance.indptr))
    if not len(rows):
        raise InputError(f"{folder}: no row of {split} has a label; there is nothing to judge")
    places = _rows_of(snapshot, corpus.label_ids)
    missing = wanted.relevance.indices[places[wanted.relevance.indices] < 0]
    if len(missing):
        label = corpus.label_ids[missing.min()]
        raise InputError(f"{folder}: label {label!r} is not in the collection; was it exported from this corpus?")
    ranked = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        ranked.append(snapshot.predict([wanted.texts[row] for row in block], DEPTH).rows)
        advance(len(block))
    judged = Judged.of(np.concatenate(ranked), _in_rows(wanted.relevance[rows], places, snapshot.labels.rows))
    counts = np.zeros(snapshot.labels.rows, dtype=np.int64)
    counts[places[places >= 0]] = np.bincount(train.relevance.indices, minlength=len(places))[places >= 0]
    unseen, unseen_rows = judged.restricted_recall(10, counts == 0)
    return Evaluation(
        split=split,
        bundle=snapshot.bundle.manifest.bundle,
        rows=len(wanted),
        rows_without_labels=len(wanted) - len(rows),
        labels=len(snapshot.labels),
        metrics=_metrics(judged, inverse_propensity(counts, len(train), a=a, b=b)),
        unseen={"R@10": 100 * unseen, "R@100": 100 * judged.restricted_recall(100, counts == 0)[0]},
        unseen_rows=unseen_rows,
        buckets=[_bucket(judged, counts, least, most) for least, most in _BUCKETS],
        a=a,
        b=b,
    )


def format_evaluation(evaluation: Evaluation) -> str:
    """The figures as a table for a terminal."""
    judged = evaluation.rows - evaluation.rows_without_labels
    lines = [
        f"{evaluation.split} of bundle {evaluation.bundle}: {judged} rows judged, "
        f"{evaluation.rows_without_labels} without labels left out, {evaluation.labels} labels",
        *(f"  {name:<8}{value:6.1f}" for name, value in evaluation.metrics.items()),
        f"  (PSP with A={evaluation.a}, B={evaluation.b}; all figures in percent)",
        "labels by training rows   labels     rows    R@10   R@100",
    ]
    for bucket in evaluation.buckets:
        most = "and more" if bucket.most is None else f"to {bucket.most}"
        figures = f"{bucket.figures['R@10']:8.1f}{bucket.figures['R@100']:8.1f}"
        lines.append(f"  {bucket.least:>5} {most:<15}{bucket.labels:9}{bucket.rows:9}{figures}")
    unseen = f"{evaluation.unseen['R@10']:8.1f}{evaluation.unseen['R@100']:8.1f}"
    lines.append(f"  {'none (unseen)':<21}{'':9}{evaluation.unseen_rows:9}{unseen}")
    return "\n".join(lines)


def _metrics(judged: Judged, weights: NDArray[np.float64]) -> dict[str, float]:
    fractions = {
        **{f"P@{k}": judged.precision(k) for k in (1, 3, 5)},
        "nDCG@5": judged.ndcg(5),
        **{f"R@{k}": judged.recall(k) for k in (5, 10, 100)},
        **{f"PSP@{k}": judged.propensity_precision(k, weights) for k in (1, 3, 5)},
    }
    return {name: 100 * value for name, value in fractions.items()}


def _bucket(judged: Judged, counts: NDArray[np.int64], least: int, most: int | None) -> Bucket:
    wanted = (counts >= least) & (counts <= (most or np.iinfo(np.int64).max))
    recall, rows = judged.restricted_recall(10, wanted)
    deep, _ = judged.restricted_recall(100, wanted)
    return Bucket(least, most, int(wanted.sum()), rows, {"R@10": 100 * recall, "R@100": 100 * deep})


def _rows_of(snapshot: Snapshot, ids: list[str]) -> NDArray[np.int64]:
    """The snapshot's row of each id, -1 where it has none."""
    found = (snapshot.labels.find(label) for label in ids)
    return np.fromiter((-1 if row is None else row for row in found), dtype=np.int64, count=len(ids))


def _in_rows(relevance: csr_matrix, places: NDArray[np.int64], labels: int) -> csr_matrix:
    """The same relevance with the snapshot's `labels` label rows as columns."""
    shape = (relevance.shape[0], labels)
    return csr_matrix((relevance.data, places[relevance.indices], relevance.indptr), shape=shape)
