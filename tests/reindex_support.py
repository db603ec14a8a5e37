"""A collection whose examples vote, and what it serves, for the tests of re-indexing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.calibration import IDENTITY, Calibration
from index.changes import Feedback, LabelChange, PutLabel, RemoveLabel
from index.collection import Collection
from index.ranking import Ranking
from index.reindex import Outcome, Settings, reindex
from index.snapshot import Snapshot

QUERIES = (
    "zebra", "saffron tunnel", "velvet glove", "umbrella stand", "apple pie", "chess opening", "xylophone song",
    "notes on silk weaving", "größe übung", "",
)  # fmt: skip

CHANGES: tuple[LabelChange, ...] = (
    PutLabel("n1", "zebra crossing", fields={"lang": "de"}),
    PutLabel("n2", "", ("saffron tunnel", "walnut yacht")),
    RemoveLabel("s3"),
    PutLabel("s5", "velvet glove"),
    Feedback("umbrella stand", ("s7", "n1"), ("s8",)),
    PutLabel("v", vector=tuple(float(value) for value in np.linspace(-1, 1, 32))),
)


def with_votes(run: Path, folder: Path, *, neighbours: int = 32) -> Path:
    """The run exported with a memory of so many neighbours, whose votes count a third, whatever dev says of it."""
    from training import export

    def chosen(dataset: object, near: object, draft: Ranking, report: object) -> tuple[Ranking, Calibration]:
        return replace(draft, memory_weight=0.3, neighbours=neighbours), IDENTITY

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "choose_ranking", chosen)
        export.export_run(run, folder, report=silent)
    return folder


def silent(line: str) -> None:
    pass


@contextmanager
def no_meter(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    yield lambda rows: None


def done(collection: Path, settings: Settings | None = None, said: list[str] | None = None) -> Outcome:
    """The job, run to its end in this process."""
    report = silent if said is None else said.append
    return reindex(collection, settings or Settings(), report=report, meter=no_meter)


def served(snapshot: Snapshot, queries: tuple[str, ...] = QUERIES) -> list[dict[str, float]]:
    """Of each query all labels with their scores."""
    ranked = snapshot.predict(queries, len(snapshot.labels))
    pairs = zip(ranked.rows.tolist(), ranked.scores.tolist(), strict=True)
    return [
        {snapshot.labels[row].id: score for row, score in zip(rows, scores, strict=True) if row >= 0}
        for rows, scores in pairs
    ]


def same(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> bool:
    """Whether the same labels are served with the same scores, but for rounding, which their order follows."""
    return len(found) == len(wanted) and all(
        one == pytest.approx(other, abs=2e-6) for one, other in zip(found, wanted, strict=True)
    )


def changed(collection: Path, changes: tuple[LabelChange, ...] = CHANGES) -> list[dict[str, float]]:
    """What it serves after these changes."""
    with Collection(collection) as opened:
        opened.write(changes)
        return served(opened.snapshot)


def now(collection: Path) -> list[dict[str, float]]:
    with Collection(collection) as opened:
        return served(opened.snapshot)


def left_over(collection: Path) -> list[str]:
    """What a finished job must not leave: hidden folders of bundles, and anything but the lock among the work."""
    hidden = [path.name for path in (collection / "bundles").iterdir() if path.name.startswith(".")]
    work = collection / "work"
    return hidden + ([path.name for path in work.iterdir() if path.name != "lock"] if work.is_dir() else [])


def copied(collection: Path, to: Path) -> Path:
    return Path(shutil.copytree(collection, to))
