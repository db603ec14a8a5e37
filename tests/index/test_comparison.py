"""Comparison and gate: figures by a loop over what both states predict, and the lines of a gate."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.bundle import Bundle
from index.bundles import current_bundle
from index.changes import Change, PutLabel, RemoveLabel
from index.comparison import Comparison, Gate, Served, compare, default_gate, readable
from index.dev_queries import DevQuery
from index.errors import InputError
from index.snapshot import Snapshot

QUERIES = [
    DevQuery("a guide to apple pie", None, ("s0",)),
    DevQuery("bicycle repair and chess opening", None, ("s1", "s2", "never-there")),
    DevQuery("garden soil", None, ("s3",), ("s4",)),
    DevQuery("nobody said what this is"),
    DevQuery("piano lesson", None, ("s39", "s4")),
]


@pytest.fixture(scope="module")
def states(tiny_collection: Path) -> tuple[Snapshot, Snapshot]:
    old = Snapshot.of(Bundle.open(current_bundle(tiny_collection)))
    new = old.after(
        [Change(1, RemoveLabel("s0")), Change(2, PutLabel("n", "garden soil")), Change(3, RemoveLabel("s1"))]
    )
    return old, new


def ranked(snapshot: Snapshot, query: DevQuery) -> list[str]:
    rows = snapshot.predict([query.text], 30).rows[0].tolist()
    ids = [snapshot.labels[row].id for row in rows if row >= 0]
    return [label for label in ids if label not in query.exclude][:10]


def test_the_figures_are_those_of_a_loop(states: tuple[Snapshot, Snapshot]) -> None:
    old, new = states
    found = compare(old, new, QUERIES)
    shares = []
    for query in QUERIES:
        before, after = ranked(old, query), ranked(new, query)
        shares.append(len([label for label in before if label in after]) / len(before))
    assert found.overlap == pytest.approx(sum(shares) / len(shares))
    assert (found.queries, found.judged) == (5, 4)
    for served, snapshot in ((found.old, old), (found.new, new)):
        first, recall, gain = [], [], []
        for query in QUERIES:
            truth = {label for label in query.labels or () if old.labels.find(label) is not None}
            if not truth:
                continue
            labels = ranked(snapshot, query)
            first.append(labels[0] in truth)
            recall.append(len(truth.intersection(labels)) / len(truth))
            best = sum(1 / math.log2(place + 2) for place in range(min(10, len(truth))))
            won = sum(1 / math.log2(place + 2) for place, label in enumerate(labels) if label in truth)
            gain.append(won / best)
        assert served.quality["P@1"] == pytest.approx(100 * sum(first) / 4)
        assert served.quality["R@10"] == pytest.approx(100 * sum(recall) / 4)
        assert served.quality["nDCG@10"] == pytest.approx(100 * sum(gain) / 4)
        assert served.labels == len(snapshot.labels)
        assert 0 < served.p50_ms <= served.p99_ms
        assert served.bytes == sum(path.stat().st_size for path in snapshot.bundle.folder.iterdir()) - sum(
            (snapshot.bundle.folder / name).stat().st_size for name in ("manifest.json", "manifest.sha256")
        )
    assert found.new.quality["P@1"] < found.old.quality["P@1"]


def test_the_same_state_overlaps_with_itself(states: tuple[Snapshot, Snapshot]) -> None:
    found = compare(states[0], states[0], QUERIES)
    assert found.overlap == 1.0
    assert found.figures()["P@1"] == 0.0


def test_vectors_are_asked_where_there_are_no_queries(states: tuple[Snapshot, Snapshot]) -> None:
    old, new = states
    vectors = old.bundle.sums[:7] / np.linalg.norm(old.bundle.sums[:7], axis=1, keepdims=True)
    found = compare(old, new, [], vectors)
    assert (found.queries, found.judged, found.old.quality) == (7, 0, {})
    assert 0.5 < found.overlap < 1.0
    assert default_gate(same_model=True, recall=0.99).failures(replace(found, overlap=0.95)) == []
    nothing = compare(old, new, [], None)
    assert (nothing.queries, nothing.overlap) == (0, 1.0)


def comparison(**figures: float) -> Comparison:
    old = Served(10, {"P@1": 50.0, "R@10": 60.0, "nDCG@10": 55.0}, 1.0, 2.0, 1000)
    new = Served(10, {"P@1": 50.0 + figures.get("gained", 0.0), "R@10": 60.0, "nDCG@10": 55.0}, 1.0, 2.0, 1000)
    return Comparison(old, new, figures.get("overlap", 1.0), figures.get("recall", 1.0), 5, 5)


def test_the_default_gate() -> None:
    same, other = default_gate(same_model=True, recall=0.99), default_gate(same_model=False, recall=0.99)
    assert same.failures(comparison(gained=-1.0, overlap=0.9, recall=0.99)) == []
    assert same.failures(comparison(overlap=0.89)) == ["overlap is 0.89, at least 0.9 is asked for"]
    assert other.failures(comparison(overlap=0.1)) == []
    assert other.failures(comparison(gained=-1.1, recall=0.98)) == [
        "P@1 is -1.1, at least -1 is asked for",
        "recall is 0.98, at least 0.99 is asked for",
    ]


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("none", {}),
        ("overlap=0.5", {"overlap": 0.5, "P@1": -1.0, "recall": 0.99}),
        (" P@1 = -3 , nDCG@10=0", {"overlap": 0.9, "P@1": -3.0, "recall": 0.99, "nDCG@10": 0.0}),
    ],
)
def test_a_gate_is_read_over_the_default(text: str, least: dict[str, float]) -> None:
    assert Gate.parse(text, default_gate(same_model=True, recall=0.99)).least == least


@pytest.mark.parametrize(
    "text", ["", "overlap", "overlap=", "overlap=x", "speed=1", "overlap=nan", "P@1=inf", "P@1=1,"]
)
def test_a_gate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="gate"):
        Gate.parse(text, default_gate(same_model=True, recall=0.99))


def test_fields_that_a_model_does_not_read_are_left_out(field_collection: Path) -> None:
    snapshot = Snapshot.of(Bundle.open(current_bundle(field_collection)))
    assert readable(snapshot, {"type": "book", "year": 1990, "lang": ["en"]}) == {"type": "book", "lang": ["en"]}
    assert readable(snapshot, {"year": 1990}) is None
    assert readable(snapshot, None) is None
