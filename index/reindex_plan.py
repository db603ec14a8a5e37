"""What a re-index would do: counted from the log and the bundle, without writing anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.bundle import Bundle
from index.bundles import current_bundle
from index.change_log import open_log
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.collection_folder import check_collection
from index.encoder import Encoder
from index.errors import InputError
from index.plan import Calibration, calibrated, plan

_TIMED_TEXTS = 256


@dataclass(frozen=True, slots=True)
class ReindexPlan:
    """bundle: that would be begun from. after, upto: the changes that would go in are those behind the one and up to
    the other. labels: that the new bundle would have. texts: to encode, about; encoding_seconds: with one process.
    index, building_seconds: the label index that would be built first, and on one thread both indexes.

    bytes: of the new bundle, about; the job needs as much again until it ends.
    """

    bundle: str
    after: int
    upto: int
    changes: int
    puts: int
    removals: int
    feedback: int
    labels: int
    texts: int
    encoding_seconds: float
    index: str
    building_seconds: float
    bytes: int

    def lines(self) -> list[str]:
        return [
            f"bundle {self.bundle} has the changes up to {self.after}; up to {self.upto} there are {self.changes} more",
            f"labels put {self.puts}, removed {self.removals}, examples given or taken back {self.feedback}",
            f"the new bundle would have {self.labels} labels and about {self.bytes / 1e6:.1f} MB "
            "(and the job needs as much again until it ends)",
            f"about {self.texts} texts to encode: {self.encoding_seconds:.0f} s with one process",
            f"indexes to build, {self.index} of the labels: {self.building_seconds:.0f} s on one thread",
        ]


def plan_reindex(
    collection: Path,
    *,
    upto: int | None = None,
    index: str = "auto",
    log: str | None = None,
    calibrate: Callable[[str, int, int], Calibration] = calibrated,
) -> ReindexPlan:
    """What `reindex` of the current bundle would do. Raises InputError and BundleError as it does.

    calibrate: as index.plan.plan takes it.
    """
    check_collection(collection)
    folder = current_bundle(collection)
    bundle = Bundle.open(folder)
    after = bundle.manifest.change
    opened = open_log(collection, log)
    try:
        newest = opened.last()
        last = newest if upto is None else upto
        if last > newest:
            raise InputError(f"upto {last}: the newest change is {newest}")
        if last < after:
            raise InputError(f"upto {last}: bundle {folder.name} has the changes up to {after} already")
        counted = _Counted(bundle)
        for change in opened.since(after, last):
            counted.take(change.what)
    finally:
        opened.close()
    labels = len(bundle.labels) + counted.difference()
    grown = sum(seal.bytes for name, seal in bundle.manifest.files.items() if _grows(name))
    rest = sum(seal.bytes for name, seal in bundle.manifest.files.items() if not _grows(name))
    examples = 0 if bundle.memory is None else int(bundle.memory.ntotal) + counted.examples
    built = plan(max(1, labels), bundle.manifest.dim, calibrate, spec=index, examples=examples)
    return ReindexPlan(
        folder.name,
        after,
        last,
        counted.changes,
        counted.puts,
        counted.removals,
        counted.feedback,
        labels,
        counted.texts,
        counted.texts * _seconds_each(bundle.label_texts, counted.some),
        built.labels.factory,
        built.seconds,
        round(rest + grown * labels / max(1, len(bundle.labels))),
    )


class _Counted:
    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._live: dict[str, bool] = {}
        self.changes = self.puts = self.removals = self.feedback = self.texts = self.examples = 0
        self.some: list[str] = []

    def take(self, change: LabelChange) -> None:
        self.changes += 1
        match change:
            case PutLabel(id=label, text=text, examples=examples):
                self.puts += 1
                self.texts += 1 + len(examples)
                self.examples += len(examples)
                self._live[label] = True
                self._note(text)
            case RemoveLabel(id=label):
                self.removals += 1
                self._live[label] = False
            case Feedback(text=text) | RemoveExample(text=text):
                self.feedback += 1
                self.texts += 1
                self.examples += isinstance(change, Feedback)
                self._note(text)

    def difference(self) -> int:
        """How many labels there are more than in the bundle."""
        known = self._bundle.labels
        there = known.find_all(self._live)
        return sum(live - (label in there) for label, live in self._live.items())

    def _note(self, text: str) -> None:
        if text.strip() and len(self.some) < _TIMED_TEXTS:
            self.some.append(text)


def _grows(name: str) -> bool:
    """Whether a file grows with the labels."""
    return name.startswith(("labels.", "facets.", "vectors.", "index."))


def _seconds_each(encoder: Encoder, texts: Sequence[str]) -> float:
    if not texts:
        return 0.0
    began = time.perf_counter()
    encoder.texts(list(texts))
    return (time.perf_counter() - began) / len(texts)
