"""Two states of a collection on the same queries: what they predict, how well, how fast; and what is let pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.dev_queries import DevQuery
from index.errors import InputError
from index.fields import Fields
from index.snapshot import Snapshot

_DEPTH = 10
_TIMED = 200
# Asked before anything is timed: what is read for the first time is slow.
_WARMED = 10
_QUALITY = ("P@1", "R@10", "nDCG@10")


@dataclass(frozen=True, slots=True)
class Served:
    """What one state does. quality: P@1, R@10 and nDCG@10 in percent, empty where no query has labels.

    p50_ms, p99_ms: of one prediction, encoding included, on one thread. bytes: of the bundle's files.
    """

    labels: int
    quality: Mapping[str, float]
    p50_ms: float
    p99_ms: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """overlap: of the labels that the old state has among its first 10, the share that the new has there as well.

    recall: recall@10 of the new label index against exact search. queries: how many were asked; judged: those of them
    that have labels which are there.
    """

    old: Served
    new: Served
    overlap: float
    recall: float
    queries: int
    judged: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def figures(self) -> dict[str, float]:
        """What a gate may name: overlap and recall as they are, the quality as new minus old in points."""
        gained = {name: self.new.quality[name] - self.old.quality[name] for name in self.old.quality}
        return {"overlap": self.overlap, "recall": self.recall, **gained}

    def lines(self) -> list[str]:
        """The comparison for a reader."""
        rows = [("labels", f"{self.old.labels}", f"{self.new.labels}")]
        rows += [(name, f"{self.old.quality[name]:.1f}", f"{self.new.quality[name]:.1f}") for name in self.old.quality]
        rows += [
            (f"{name} ms", f"{before:.2f}", f"{after:.2f}")
            for name, before, after in (
                ("p50", self.old.p50_ms, self.new.p50_ms),
                ("p99", self.old.p99_ms, self.new.p99_ms),
            )
        ]
        rows.append(("MB", f"{self.old.bytes / 1e6:.1f}", f"{self.new.bytes / 1e6:.1f}"))
        table = [f"{name:<10}{before:>12}{after:>12}" for name, before, after in (("", "old", "new"), *rows)]
        asked = f"{self.queries} queries, {self.judged} of them with labels"
        return [*table, f"overlap@10 {self.overlap:.4f}, recall@10 {self.recall:.4f} ({asked})"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new bundle has to reach: by figure, the least value (points may be negative)."""

    least: Mapping[str, float]

    @classmethod
    def parse(cls, text: str, default: Gate) -> Gate:
        """NAME=NUMBER,…, each in place of the default's; "none" asks for nothing. Raises InputError for other text."""
        if text.strip() == "none":
            return cls({})
        least = dict(default.least)
        for part in text.split(","):
            name, equals, value = (one.strip() for one in part.partition("="))
            known = ("overlap", "recall", *_QUALITY)
            if not equals or name not in known:
                raise InputError(f"gate {part.strip()!r}: give NAME=NUMBER with a name of {', '.join(known)}, or none")
            try:
                least[name] = float(value)
            except ValueError:
                raise InputError(f"gate {part.strip()!r}: {value!r} is not a number") from None
            if not math.isfinite(least[name]):
                raise InputError(f"gate {part.strip()!r}: {value!r} is not a finite number")
        return cls(least)

    def failures(self, comparison: Comparison) -> list[str]:
        """What is not reached, a line each; a figure that could not be measured holds nothing back."""
        found = comparison.figures()
        return [
            f"{name} is {found[name]:.4g}, at least {least:.4g} is asked for"
            for name, least in self.least.items()
            # Sums of rounded shares must not fail by the last bit.
            if name in found and found[name] < least - 1e-9
        ]


def default_gate(*, same_model: bool, recall: float) -> Gate:
    """Of the same model the same predictions are asked for; of another one, that it is not worse."""
    least = {"P@1": -1.0, "recall": recall}
    return Gate({"overlap": 0.9, **least} if same_model else least)


def compare(
    old: Snapshot, new: Snapshot, queries: Sequence[DevQuery], vectors: NDArray[np.float32] | None = None
) -> Comparison:
    """Both states on the same queries, one after the other for each, so that the machine's moods meet both.

    vectors: (n, dim) unit query vectors to ask both instead, where there are no queries and both are of one model.
    """
    with _one_thread():
        if queries or vectors is None:
            ranked = [_ranked(snapshot, queries) for snapshot in (old, new)]
            timed = _times([_asking(one, queries[:_TIMED]) for one in (old, new)], min(_TIMED, len(queries)))
        else:
            ranked = [_ids(snapshot, snapshot.rank(vectors, _DEPTH).rows) for snapshot in (old, new)]
            timed = _times([_asking_vectors(one, vectors) for one in (old, new)], min(_TIMED, len(vectors)))
    # Labels that are there no more can be found by neither.
    judged = [
        (place, truth)
        for place, query in enumerate(queries)
        if (truth := {label for label in query.labels or () if old.labels.find(label) is not None})
    ]
    before, after = (
        Served(len(snapshot.labels), _quality(ids, judged), *times, _bytes(snapshot))
        for snapshot, ids, times in zip((old, new), ranked, timed, strict=True)
    )
    recall = new.bundle.manifest.index.recall
    return Comparison(before, after, _overlap(*ranked), recall, len(ranked[0]), len(judged))


def readable(snapshot: Snapshot, fields: Fields | None) -> Fields | None:
    """Those fields that this model reads of a query: another one may have been asked with more."""
    found: dict[str, object] = {}
    for name, value in (fields or {}).items():
        with suppress(InputError):
            snapshot.check_fields({**found, name: value})
            found[name] = value
    return found or None


def _ranked(snapshot: Snapshot, queries: Sequence[DevQuery]) -> list[list[str]]:
    """The ids of the first 10 labels of each query, without those that it excludes."""
    if not queries:
        return []
    more = max(len(query.exclude) for query in queries)
    fields = [readable(snapshot, query.fields) for query in queries]
    rows = snapshot.predict([query.text for query in queries], _DEPTH + more, fields).rows
    ids = _ids(snapshot, rows)
    pairs = zip(queries, ids, strict=True)
    return [[label for label in found if label not in query.exclude][:_DEPTH] for query, found in pairs]


def _ids(snapshot: Snapshot, rows: NDArray[np.int64]) -> list[list[str]]:
    return [[snapshot.labels[row].id for row in found if row >= 0] for found in rows.tolist()]


def _overlap(old: list[list[str]], new: list[list[str]]) -> float:
    shares = [len(set(before) & set(after)) / len(before) for before, after in zip(old, new, strict=True) if before]
    return float(np.mean(shares)) if shares else 1.0


def _quality(ranked: list[list[str]], judged: list[tuple[int, set[str]]]) -> dict[str, float]:
    if not judged:
        return {}
    discount = 1.0 / np.log2(np.arange(2, _DEPTH + 2))
    figures = []
    for place, truth in judged:
        hits = np.array([label in truth for label in ranked[place]], dtype=np.float64)
        best = discount[: min(_DEPTH, len(truth))].sum()
        first = float(hits[:1].sum())
        figures.append((first, hits.sum() / len(truth), (hits @ discount[: len(hits)]) / best))
    return dict(zip(_QUALITY, (100 * np.mean(figures, axis=0)).tolist(), strict=True))


def _times(asking: Sequence[Callable[[int], object]], count: int) -> list[tuple[float, float]]:
    """p50 and p99 in ms of each of the states, asked in turn for queries 0 to count - 1."""
    taken: list[list[float]] = [[] for _ in asking]
    for place in range(min(count, _WARMED)):
        for ask in asking:
            ask(place)
    for place in range(count):
        for ask, times in zip(asking, taken, strict=True):
            began = time.perf_counter()
            ask(place)
            times.append(time.perf_counter() - began)
    return [_percentiles(times) for times in taken]


def _asking(snapshot: Snapshot, queries: Sequence[DevQuery]) -> Callable[[int], object]:
    texts = [query.text for query in queries]
    fields = [readable(snapshot, query.fields) for query in queries]
    return lambda place: snapshot.predict([texts[place]], _DEPTH, [fields[place]])


def _asking_vectors(snapshot: Snapshot, vectors: NDArray[np.float32]) -> Callable[[int], object]:
    return lambda place: snapshot.rank(vectors[place : place + 1], _DEPTH)


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    if not seconds:
        return 0.0, 0.0
    p50, p99 = np.percentile(seconds, [50, 99])
    return float(1000 * p50), float(1000 * p99)


def _bytes(snapshot: Snapshot) -> int:
    return sum(seal.bytes for seal in snapshot.bundle.manifest.files.values())


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread inside, and on as many as before outside."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
