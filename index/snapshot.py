"""One state of a served model: a bundle with the changes up to a number; predicts, and gives the next state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.bundle import Bundle
from index.changes import Change, PutLabel
from index.field_spec import FieldSpec
from index.fields import Fields
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
        """The fields that the model reads beside the text."""
        return self.bundle.manifest.features.fields

    def predict(self, texts: Sequence[str], k: int, fields: Sequence[Fields | None] | None = None) -> Predictions:
        """The k best labels of each text, with the fields of each or None.

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
            index = index.add(np.array(list(puts), dtype=np.int64), self._vectors(puts))
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
        """Unit vectors (len(puts), dim): text ⊕ what training left of the label ⊕ centroid of the new examples."""
        texts = self._encode_label_texts([put.text for put in puts.values()])
        queries = np.zeros_like(texts)
        for place, put in enumerate(puts.values()):
            if put.examples:
                queries[place] = self.bundle.queries.texts(put.examples).sum(axis=0)
        counts = np.array([[len(put.examples)] for put in puts.values()], dtype=np.float32)
        sums = label_sum(texts, self._trained_parts(list(puts)), centroid_part(queries, counts))
        for place, put in enumerate(puts.values()):
            if put.vector is not None:
                sums[place] = put.vector
        return unit(sums)

    def _trained_parts(self, rows: list[int]) -> NDArray[np.float32]:
        """What training added to the texts of these rows, (len(rows), dim); zero for labels that it did not know."""
        parts = np.zeros((len(rows), self.bundle.manifest.dim), dtype=np.float32)
        known = [(place, row) for place, row in enumerate(rows) if row < len(self.bundle.labels)]
        if known:
            old = self._encode_label_texts([self.bundle.labels.texts[row] for _, row in known])
            for (place, row), text in zip(known, old, strict=True):
                parts[place] = self.bundle.sums[row] - text
        return parts

    def _encode_label_texts(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = self.bundle.label_texts.texts(texts)
        vectors[[not text.strip() for text in texts]] = 0.0
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
