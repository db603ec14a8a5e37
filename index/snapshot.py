"""One state of a served model: a bundle with the changes up to a number; predicts, and gives the next state."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.bundle import Bundle
from index.changes import Change, PutLabel
from index.errors import InputError
from index.features import FeatureSpec
from index.field_spec import FieldSpec
from index.fields import Fields, field_values
from index.label_vector import centroid_part, label_sum, unit, unknown_rows
from index.labels import LiveLabels
from index.layered import LayeredIndex
from index.memory import ExampleLabels, Votes, vote
from index.ranking import CANDIDATES, Predictions, rank


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable: a reader keeps the snapshot it took, whatever is written meanwhile.

    change: the newest change that is in it. removed: (r,) int64, rows of removed labels, ascending.
    """

    bundle: Bundle
    labels: LiveLabels
    index: LayeredIndex
    memory: LayeredIndex | None
    example_labels: ExampleLabels
    removed: NDArray[np.int64]
    change: int

    @classmethod
    def of(cls, bundle: Bundle) -> Snapshot:
        return cls(
            bundle,
            LiveLabels(bundle.labels),
            LayeredIndex.over(bundle.index).hide(unknown_rows(bundle.sums)),
            None if bundle.memory is None else LayeredIndex.over(bundle.memory),
            ExampleLabels(bundle.example_labels, np.zeros(0, dtype=np.int64)),
            np.zeros(0, dtype=np.int64),
            bundle.manifest.change,
        )

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The fields that the model reads beside the text, of queries or of labels."""
        return self.bundle.manifest.features.fields

    def check_fields(self, fields: Fields | None, tower: str = "query") -> None:
        """Raises InputError naming a field that this tower ("query", "label") does not read, or whose value is none."""
        if fields:
            features = self.bundle.manifest.features
            bags = features if isinstance(features, FeatureSpec) else features.bags
            field_values(fields, self.fields, tower, () if bags is None else bags.crosses)

    def predict(self, texts: Sequence[str], k: int, fields: Sequence[Fields | None] | None = None) -> Predictions:
        """The k best labels of each text, with the fields of each or None; a text may be blank beside its fields.

        Raises InputError naming a field that the model does not read, or whose value is none.
        """
        return self.rank(self.bundle.queries.texts(texts, fields), k)

    def rank(self, queries: NDArray[np.float32], k: int) -> Predictions:
        """The k best labels of each unit query vector (n, dim)."""
        found = self.index.search(queries, max(k, CANDIDATES))
        return rank(found, self.votes(queries), self.bundle.manifest.ranking, k)

    def votes(self, queries: NDArray[np.float32]) -> Votes | None:
        """The memory's votes for live labels; None without a memory."""
        if self.memory is None:
            return None
        ranking = self.bundle.manifest.ranking
        found = self.memory.search(queries, ranking.neighbours)
        votes = vote(found, self.example_labels, temperature=ranking.memory_temperature)
        if len(self.removed):
            live = ~np.isin(votes.label, self.removed)
            votes = Votes(votes.query[live], votes.label[live], votes.weight[live])
        return votes

    def probabilities(self, predictions: Predictions) -> NDArray[np.float32]:
        """Calibrated probability of each prediction, (n, k) float32."""
        return self.bundle.calibration(predictions.scores)

    def after(self, changes: Sequence[Change]) -> Snapshot:
        """The state after these changes, which follow on `change` in order."""
        if not changes:
            return self
        labels, rows = self.labels.apply([change.what for change in changes])
        # Only what a row is in the end matters: a label put twice is encoded once, one removed again not at all.
        last = {row: change.what for row, change in zip(rows, changes, strict=True) if row is not None}
        gone = [row for row in last if row in labels.removed]
        puts = {row: what for row, what in last.items() if isinstance(what, PutLabel) and row not in labels.removed}
        index = self.index.hide(gone)
        if puts:
            vectors, changed = self._vectors(puts), np.array(list(puts), dtype=np.int64)
            # Of a label that was put under another model, this one may know nothing at all.
            known = np.any(vectors, axis=1)
            index = index.add(changed[known], vectors[known]).hide(changed[~known].tolist())
        memory, example_labels = self._remember(puts, gone)
        return replace(
            self,
            labels=labels,
            index=index,
            memory=memory,
            example_labels=example_labels,
            removed=np.array(sorted(labels.removed), dtype=np.int64),
            change=changes[-1].number,
        )

    def _vectors(self, puts: dict[int, PutLabel]) -> NDArray[np.float32]:
        """Unit vectors (len(puts), dim): text and fields ⊕ what training left of the label ⊕ centroid of the new
        examples; zero where this model can read nothing of a label."""
        fields = [self._fields_of(put) for put in puts.values()]
        texts = self._encode_labels([put.text for put in puts.values()], fields)
        queries = np.zeros_like(texts)
        for place, put in enumerate(puts.values()):
            if put.examples:
                queries[place] = self.bundle.queries.texts(put.examples).sum(axis=0)
        counts = np.array([[len(put.examples)] for put in puts.values()], dtype=np.float32)
        sums = label_sum(texts, self._trained_parts(list(puts)), centroid_part(queries, counts))
        for place, put in enumerate(puts.values()):
            # One of another length belongs to a bundle from before, whose model had another dim.
            if put.vector is not None and len(put.vector) == self.bundle.manifest.dim:
                sums[place] = put.vector
        return unit(sums)

    def _fields_of(self, put: PutLabel) -> Fields | None:
        """Those that this model reads: the log may come from a time when another one was served, and has to replay."""
        found: dict[str, object] = {}
        for name, value in (put.fields or {}).items():
            with suppress(InputError):
                self.check_fields({**found, name: value}, "label")
                found[name] = value
        return found or None

    def _trained_parts(self, rows: list[int]) -> NDArray[np.float32]:
        """What training added to the texts of these rows, (len(rows), dim); zero for labels that it did not know.

        What a label's fields in the corpus gave it is part of that: the bundle does not say which they were.
        """
        parts = np.zeros((len(rows), self.bundle.manifest.dim), dtype=np.float32)
        known = [(place, row) for place, row in enumerate(rows) if row < len(self.bundle.labels)]
        if known:
            texts = [self.bundle.labels.texts[row] for _, row in known]
            old = self._encode_labels(texts, [None] * len(texts))
            for (place, row), text in zip(known, old, strict=True):
                parts[place] = self.bundle.sums[row] - text
        return parts

    def _encode_labels(self, texts: Sequence[str], fields: Sequence[Fields | None]) -> NDArray[np.float32]:
        """What the label tower makes of these, (len(texts), dim); zero where neither text nor fields say anything."""
        vectors = self.bundle.label_texts.texts(texts, fields)
        vectors[[not says_something(*pair) for pair in zip(texts, fields, strict=True)]] = 0.0
        return vectors

    def _remember(self, puts: dict[int, PutLabel], gone: list[int]) -> tuple[LayeredIndex | None, ExampleLabels]:
        """The memory with the examples of the labels put, and without those that they or removed labels had added."""
        if self.memory is None:
            return None, self.example_labels
        base = len(self.example_labels.base)
        changed = np.array([*puts, *gone], dtype=np.int64)
        memory = self.memory.hide((base + np.flatnonzero(np.isin(self.example_labels.added, changed))).tolist())
        texts = [example for put in puts.values() for example in put.examples]
        if not texts:
            return memory, self.example_labels
        owners = np.repeat(list(puts), [len(put.examples) for put in puts.values()]).astype(np.int64)
        rows = np.arange(len(owners)) + len(self.example_labels)
        added = np.concatenate([self.example_labels.added, owners])
        return memory.add(rows, self.bundle.queries.texts(texts)), ExampleLabels(self.example_labels.base, added)


def says_something(text: str, fields: Fields | None) -> bool:
    """Whether a record does: by a text that is not blank, or by a field that is neither null nor []."""
    return bool(text.strip()) or any(
        value is not None and (not isinstance(value, (list, tuple)) or len(value) > 0)
        for value in (fields or {}).values()
    )
