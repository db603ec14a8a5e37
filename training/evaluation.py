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
from index.ranking import Predictions
from index.snapshot import Snapshot
from training.bootstrap import LEVEL, RESAMPLES, Interval, percentile_intervals
from training.corpus import Corpus, Split, load_corpus
from training.metrics import (
    PROPENSITY_A,
    PROPENSITY_B,
    Judged,
    Reliability,
    RowParts,
    drawn_rows,
    inverse_propensity,
    without,
)

DEPTH = 100
# As many labels as are served unless a call asks for another number: calibration is measured on these.
SERVED = 10
_BLOCK = 256
# The first is of labels that no training row carries.
_BUCKETS = ((0, 0), (1, 1), (2, 4), (5, 9), (10, 99), (100, 999), (1000, None))
_KS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Labels with `least` to `most` (None: no end) training rows; all figures in percent.

    figures: over the rows that carry any of these labels, as if there were no others. contributions: what the hits on
    these labels add to P@k and PSP@k; over all buckets they sum to the metric. intervals: of `figures`.
    """

    least: int
    most: int | None
    labels: int
    rows: int
    figures: dict[str, float]
    contributions: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures in percent.

    corpus: its folder's name. labels: of the bundle. predicted_labels: different labels among the first 5 places of
    all rows. excluded: pairs of a row and a label that were taken out of the predictions. intervals: of the metrics
    that have one, from `bootstrap` resamples of the rows (0: none). buckets: by training rows; the first is of labels
    without any.
    """

    corpus: str
    split: str
    bundle: str
    rows: int
    rows_without_labels: int
    excluded: int
    labels: int
    predicted_labels: int
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    bootstrap: int
    buckets: list[Bucket]
    calibration: Reliability
    a: float
    b: float

    @property
    def unseen(self) -> Bucket:
        """The labels that no training row carries."""
        return self.buckets[0]

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["propensity"] = {"A": values.pop("a"), "B": values.pop("b")}
        values["bootstrap"] = {"resamples": self.bootstrap, "level": LEVEL}
        values["unseen"], values["unseen_rows"] = self.unseen.figures, self.unseen.rows
        found = self.calibration
        values["calibration"] = {
            "places": SERVED,
            "error": found.error,
            **{name: getattr(found, name).tolist() for name in ("counts", "said", "came_true")},
        }
        return values


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a snapshot predicts for the n rows of a split that have labels, beside the truth.

    judged: to depth 100. probabilities: (n, 100) float32, as served. counts: (labels,) int64, training rows of each
    label row of the snapshot; training_rows: all of them. rows: of the split, with those that have no labels.
    """

    corpus: str
    split: str
    texts: list[str]
    judged: Judged
    probabilities: NDArray[np.float32]
    counts: NDArray[np.int64]
    training_rows: int
    rows: int
    excluded: int


def evaluate(
    snapshot: Snapshot,
    folder: Path,
    *,
    split: str = "test",
    a: float = PROPENSITY_A,
    b: float = PROPENSITY_B,
    rows: int | None = None,
    bootstrap: int = RESAMPLES,
    advance: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    """Predict a split with the snapshot and judge it by the corpus' labels and train counts: `judge`, then `sum_up`."""
    judgement = judge(snapshot, folder, split=split, rows=rows, advance=advance)
    return sum_up(judgement, snapshot, a=a, b=b, bootstrap=bootstrap)


def judge(
    snapshot: Snapshot,
    folder: Path,
    *,
    split: str = "test",
    rows: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Judgement:
    """Predict the rows of a split, or so many of them drawn at random (the same ones every time), and compare.

    Rows without labels are counted and left out. Labels that the corpus excludes for a row are taken out of its
    predictions before the best are counted. Raises InputError when the corpus has no such split, no judged row, or a
    relevant label that the snapshot does not know.
    """
    read = [spec for spec in snapshot.fields if spec.of("query")]
    corpus = load_corpus(folder, list(dict.fromkeys(["train", split])), read)
    train, wanted = corpus.splits["train"], corpus.splits[split]
    drawn = drawn_rows(len(wanted), rows)
    kept = drawn[np.diff(wanted.relevance.indptr)[drawn] > 0]
    if not len(kept):
        raise InputError(f"{folder}: no row of {split} has a label; there is nothing to judge")
    places = _places(snapshot, corpus, wanted.relevance[kept])
    excluded = _in_rows(wanted.excluded[kept], places, snapshot.labels.rows)
    predictions = _predict(snapshot, wanted, kept, excluded, advance)
    counts = np.zeros(snapshot.labels.rows, dtype=np.int64)
    counts[places[places >= 0]] = np.bincount(train.relevance.indices, minlength=len(places))[places >= 0]
    return Judgement(
        corpus=folder.resolve().name,
        split=split,
        texts=[wanted.texts[row] for row in kept],
        judged=Judged.of(predictions.rows, _in_rows(wanted.relevance[kept], places, snapshot.labels.rows)),
        probabilities=snapshot.probabilities(predictions),
        counts=counts,
        training_rows=len(train),
        rows=len(drawn),
        excluded=int(excluded.nnz),
    )


def sum_up(
    judgement: Judgement,
    snapshot: Snapshot,
    *,
    a: float = PROPENSITY_A,
    b: float = PROPENSITY_B,
    bootstrap: int = RESAMPLES,
) -> Evaluation:
    """The figures of a judgement, with the propensity constants A and B and so many bootstrap resamples (0: none)."""
    judged, counts = judgement.judged, judgement.counts
    weights = inverse_propensity(counts, judgement.training_rows, a=a, b=b)
    parts = _parts(judged, weights)
    masks = [(counts >= least) & (counts <= (np.inf if most is None else most)) for least, most in _BUCKETS]
    recalls = [{f"R@{k}": judged.recall_parts(k, mask) for k in (10, DEPTH)} for mask in masks]
    # One drawing of the rows for all figures; the buckets' are told apart by their place.
    figures = {(-1, name): found for name, found in parts.items()}
    figures |= {(place, name): found for place, bucket in enumerate(recalls) for name, found in bucket.items()}
    intervals = percentile_intervals(figures, resamples=bootstrap)
    live = np.ones(len(counts), dtype=np.bool_)
    live[snapshot.removed] = False
    shown, predicted = judged.rows[:, :SERVED] >= 0, judged.predicted(5)
    return Evaluation(
        corpus=judgement.corpus,
        split=judgement.split,
        bundle=snapshot.bundle.manifest.bundle,
        rows=judgement.rows,
        rows_without_labels=judgement.rows - len(judgement.texts),
        excluded=judgement.excluded,
        labels=len(snapshot.labels),
        predicted_labels=predicted,
        metrics={
            **_percent(parts),
            **{f"coverage@{k}": 100 * judged.coverage(k) for k in _KS},
            "catalogue@5": 100 * predicted / max(len(snapshot.labels), 1),
        },
        intervals=_percent_of(-1, intervals),
        bootstrap=bootstrap,
        buckets=[
            _bucket(place, mask & live, recalls[place], _contributions(judged, weights, mask), intervals)
            for place, mask in enumerate(masks)
        ],
        calibration=Reliability.of(judgement.probabilities[:, :SERVED][shown], judged.hits[:, :SERVED][shown]),
        a=a,
        b=b,
    )


def format_evaluation(evaluation: Evaluation) -> str:
    """The figures as a table for a terminal."""
    judged = evaluation.rows - evaluation.rows_without_labels
    excluded = f", {evaluation.excluded} excluded pairs taken out" if evaluation.excluded else ""
    sure = f"; ±: half of the {LEVEL:.0%} interval, {evaluation.bootstrap} resamples" if evaluation.bootstrap else ""
    lines = [
        f"{evaluation.split} of bundle {evaluation.bundle}: {judged} rows judged, "
        f"{evaluation.rows_without_labels} without labels left out, {evaluation.labels} labels{excluded}",
        *(
            f"  {name:<12}{value:6.1f}{_plus_minus(evaluation.intervals.get(name))}"
            for name, value in evaluation.metrics.items()
        ),
        f"  (PSP, PSnDCG with A={evaluation.a}, B={evaluation.b}; all figures in percent{sure})",
        f"  ({evaluation.predicted_labels} different labels among the first 5; "
        f"calibration error {100 * evaluation.calibration.error:.1f} over the first {SERVED})",
        "labels by training rows   labels     rows    R@10          R@100         of P@5  of PSP@5",
    ]
    for bucket in evaluation.buckets:
        figures = "".join(
            f"{bucket.figures[name]:8.1f}{_plus_minus(bucket.intervals.get(name)):<6}" for name in ("R@10", "R@100")
        )
        parts = f"{bucket.contributions['P@5']:8.1f}{bucket.contributions['PSP@5']:10.1f}"
        lines.append(f"  {bucket_name(bucket):<21}{bucket.labels:9}{bucket.rows:9}{figures}{parts}")
    return "\n".join(lines)


def bucket_name(bucket: Bucket) -> str:
    """How many training rows its labels have, in words."""
    if bucket.most == 0:
        return "none (unseen)"
    if bucket.most is None:
        return f"{bucket.least:,} and more"
    return f"{bucket.least} to {bucket.most}" if bucket.most > bucket.least else f"{bucket.least}"


def _parts(judged: Judged, weights: NDArray[np.float64]) -> dict[str, RowParts]:
    return {
        **{f"P@{k}": judged.precision_parts(k) for k in _KS},
        **{f"nDCG@{k}": judged.ndcg_parts(k) for k in _KS[1:]},
        **{f"R@{k}": judged.recall_parts(k) for k in (5, 10, DEPTH)},
        **{f"PSP@{k}": judged.propensity_precision_parts(k, weights) for k in _KS},
        **{f"PSnDCG@{k}": judged.propensity_ndcg_parts(k, weights) for k in _KS[1:]},
    }


def _bucket(
    place: int,
    mask: NDArray[np.bool_],
    recalls: dict[str, RowParts],
    contributions: dict[str, RowParts],
    intervals: dict[tuple[int, str], Interval],
) -> Bucket:
    least, most = _BUCKETS[place]
    return Bucket(
        least,
        most,
        labels=int(mask.sum()),
        rows=int(recalls["R@10"].of.sum()),
        figures=_percent(recalls),
        contributions=_percent(contributions),
        intervals=_percent_of(place, intervals),
    )


def _contributions(judged: Judged, weights: NDArray[np.float64], mask: NDArray[np.bool_]) -> dict[str, RowParts]:
    return {
        **{f"P@{k}": judged.precision_parts(k, mask) for k in _KS},
        **{f"PSP@{k}": judged.propensity_precision_parts(k, weights, mask) for k in _KS},
    }


def _percent(parts: dict[str, RowParts]) -> dict[str, float]:
    return {name: 100 * found.figure for name, found in parts.items()}


def _percent_of(place: int, intervals: dict[tuple[int, str], Interval]) -> dict[str, Interval]:
    return {name: Interval(100 * found.low, 100 * found.high) for (of, name), found in intervals.items() if of == place}


def _plus_minus(interval: Interval | None) -> str:
    return "" if interval is None else f" ±{(interval.high - interval.low) / 2:.1f}"


def _predict(
    snapshot: Snapshot,
    split: Split,
    rows: NDArray[np.int64],
    excluded: csr_matrix,
    advance: Callable[[int], None],
) -> Predictions:
    """The first 100 labels of each of these rows of a split that are not excluded for it; excluded: (rows, labels)."""
    deepest = DEPTH + int(np.diff(excluded.indptr).max(initial=0))
    ranked, scores = [], []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        fields = None if split.fields is None else [split.fields[row] for row in block]
        found = snapshot.predict([split.texts[row] for row in block], deepest, fields)
        best, score = without(found.rows, found.scores, excluded[start : start + _BLOCK], DEPTH)
        ranked.append(best)
        scores.append(score)
        advance(len(block))
    return Predictions(np.concatenate(ranked), np.concatenate(scores))


def _places(snapshot: Snapshot, corpus: Corpus, relevance: csr_matrix) -> NDArray[np.int64]:
    """The snapshot's row of each of the corpus' labels, −1 where it has none.

    Raises InputError when one of these is relevant.
    """
    found = (snapshot.labels.find(label) for label in corpus.label_ids)
    places = np.fromiter((-1 if row is None else row for row in found), np.int64, count=len(corpus.label_ids))
    missing = relevance.indices[places[relevance.indices] < 0]
    if len(missing):
        label = corpus.label_ids[missing.min()]
        raise InputError(
            f"{corpus.folder}: label {label!r} is not in the collection; was it exported from this corpus?"
        )
    return places


def _in_rows(matrix: csr_matrix, places: NDArray[np.int64], labels: int) -> csr_matrix:
    """The same entries with the snapshot's `labels` label rows as columns, without those that it does not know."""
    row, column = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), places[matrix.indices]
    known = column >= 0
    return csr_matrix((matrix.data[known], (row[known], column[known])), shape=(matrix.shape[0], labels))
