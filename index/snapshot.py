"""One state of a served model: a bundle with the changes up to a number; predicts, and gives the next state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from index.added_examples import AddedExamples, ExampleDraft
from index.bundle import Bundle
from index.carried import Carried, example_key
from index.changes import Change, Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.example_finder import ExampleFinder
from index.field_spec import FieldSpec
from index.fields import Fields
from index.label_filter import LabelFilter
from index.label_state import LabelState
from index.label_vector import unknown_rows
from index.labels import LiveLabels
from index.layered import LayeredIndex
from index.memory import ExampleLabels, Votes, vote
from index.ranking import CANDIDATES, Predictions, rank
from index.reading import check_label, check_query, encode_known, known_fields, says_something

__all__ = ["Snapshot", "says_something"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable: a reader keeps the snapshot it took, whatever is written meanwhile. A change costs what it changes.

    change: the newest change that is in it. memory: of the training's examples, and behind them of `examples` by their
    numbers; finder: of the training's. given: label row -> the vector (dim,) that it was put with. fresh: rows (m,) of
    the bundle's labels that training did not know, ascending.
    """

    bundle: Bundle
    labels: LiveLabels
    index: LayeredIndex
    memory: LayeredIndex | None
    finder: ExampleFinder | None
    example_labels: ExampleLabels
    examples: AddedExamples
    given: Map[int, NDArray[np.float32]]
    fresh: NDArray[np.int64]
    change: int

    @classmethod
    def of(cls, bundle: Bundle) -> Snapshot:
        carried, examples = bundle.carried.labels, AddedExamples.of(bundle.carried.examples)
        rescore = bundle.manifest.index.rescore
        index = LayeredIndex.over(bundle.index, bundle.sums, carried.rows, rescore).hide(unknown_rows(bundle.sums))
        memory, finder, twins = None, None, dict[int, tuple[int, ...]]()
        if bundle.memory is not None:
            finder = ExampleFinder(bundle.memory, len(bundle.example_labels))
            lost = [number for number in range(len(examples)) if number not in examples.pairs]
            silent = np.flatnonzero(~np.any(examples.vectors.values, axis=1))
            memory = LayeredIndex.over(bundle.memory).hide(len(bundle.example_labels) + np.union1d(lost, silent))
            heard = np.setdiff1d(np.arange(len(examples)), silent)
            twins = _twins(finder, heard, examples.vectors.values[heard])
        given = {int(row): vector for row, vector in zip(carried.rows, carried.given, strict=True) if vector.any()}
        return cls(
            bundle,
            LiveLabels(bundle.labels),
            index,
            memory,
            finder,
            ExampleLabels(bundle.example_labels, examples.pairs, twins=Map(twins)),
            examples,
            Map(given),
            carried.rows[carried.put & ~np.any(carried.trained, axis=1)],
            bundle.manifest.change,
        )

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The fields that the model reads beside the text, of queries or of labels."""
        return self.bundle.manifest.features.fields

    @property
    def removed(self) -> NDArray[np.int64]:
        """Rows (r,) of removed labels, ascending."""
        return np.sort(np.fromiter(self.labels.removed, dtype=np.int64, count=len(self.labels.removed)))

    def check_fields(self, fields: Fields | None, tower: str = "query") -> None:
        """Raises InputError naming a field whose value is none, or of a query one that its tower does not read.

        Labels (tower "label") may have any fields: those that no model reads are there to be filtered by.
        """
        (check_query if tower == "query" else check_label)(self.bundle.manifest.features, fields)

    def predict(
        self,
        texts: Sequence[str],
        k: int,
        fields: Sequence[Fields | None] | None = None,
        only: LabelFilter | None = None,
    ) -> Predictions:
        """The k best labels of each text, with the fields of each or None; a text may be blank beside its fields.

        Raises InputError naming a field that the model does not read, or whose value is none. only: as for `rank`.
        """
        return self.rank(self.bundle.queries.texts(texts, fields), k, only)

    def rank(self, queries: NDArray[np.float32], k: int, only: LabelFilter | None = None) -> Predictions:
        """The k best labels of each unit query vector (n, dim).

        only: the filter that labels have to match to be shown, as many of them as there are up to k; None for all. What
        a label scores is the same with it and without.
        """
        found, ranking = self.index.search(queries, max(k, CANDIDATES)), self.bundle.manifest.ranking
        if only is None:
            return rank(found, self.votes(queries), ranking, k)
        allowed = self.labels.matching(only)
        shown = self.index.search(queries, max(k, CANDIDATES), allowed)
        return rank(found, self.votes(queries, allowed), ranking, k, shown)

    def votes(self, queries: NDArray[np.float32], allowed: NDArray[np.int64] | None = None) -> Votes | None:
        """The memory's votes for and against live labels; None without a memory. allowed: ascending rows (m,) of the
        only labels that are voted for, None for all."""
        if self.memory is None:
            return None
        ranking = self.bundle.manifest.ranking
        # Twins shall take the places of no other neighbours.
        asked = ranking.neighbours * (2 if self.example_labels.twins else 1)
        found = self.memory.search(queries, asked)
        votes = self._weighed(
            vote(found, self.example_labels, temperature=ranking.memory_temperature, most=ranking.neighbours)
        )
        kept = ~self.labels.gone(votes.label)
        if allowed is not None:
            places = np.searchsorted(allowed, votes.label)
            kept &= np.append(allowed, -1)[places] == votes.label
        return votes if kept.all() else Votes(votes.query[kept], votes.label[kept], votes.weight[kept])

    def _weighed(self, votes: Votes) -> Votes:
        """With those for labels that training did not know weighing more, as `index.addition` says."""
        factor, base = self.bundle.manifest.addition.votes, len(self.bundle.labels)
        if factor == 1.0 or (self.labels.rows == base and not len(self.fresh)):
            return votes
        places = np.searchsorted(self.fresh, votes.label)
        new = (votes.label >= base) | (np.append(self.fresh, -1)[places] == votes.label)
        weight = np.where(new, np.clip(votes.weight * np.float32(factor), -1.0, 1.0), votes.weight)
        return Votes(votes.query, votes.label, weight.astype(np.float32))

    def probabilities(self, predictions: Predictions) -> NDArray[np.float32]:
        """Calibrated probability of each prediction, (n, k) float32."""
        return self.bundle.calibration(predictions.scores)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors (n, dim) under which live labels are searched, zero for one of which nothing is known."""
        return self._state().vectors(rows.tolist())

    def carried(self) -> Carried:
        """What a bundle has to keep of the changes since the training, under the rows of this snapshot."""
        return Carried(self._state().carried(), self.examples.carried())

    def shown_examples(self) -> NDArray[np.int64]:
        """The memory's rows (m,) of examples that count, ascending: of training's those that never had a label or have
        one left that is live, then all that `carried` has."""
        count = len(self.bundle.example_labels)
        lengths, labels, _ = self.example_labels.of(np.arange(count))
        live = np.bincount(np.repeat(np.arange(count), lengths)[~self.labels.gone(labels)], minlength=count)
        silent = np.diff(self.bundle.example_labels.offsets) == 0
        added = count + np.array(sorted(self.examples.keys), dtype=np.int64)
        return np.concatenate([np.flatnonzero((live > 0) | silent), added])

    def after(self, changes: Sequence[Change]) -> Snapshot:
        """The state after these changes, which follow on `change` in order.

        What is said of a label that is not there is passed over. Only what a label is in the end is encoded.
        """
        if not changes:
            return self
        told = [change.what for change in changes]
        labels, rows = self.labels.apply(told)
        draft, said = ExampleDraft(self.examples), _Said()
        for what, met in zip(told, rows, strict=True):
            said.take(what, met, draft)
        arrived, forgotten = self._encode(list(draft.new.values()), said.forgotten)
        examples = draft.finish(arrived)
        memory, example_labels = self._remember(draft, said, labels, examples, forgotten)
        changed = sorted(row for row in {*said.puts, *draft.changed} if row not in labels.removed)
        after = replace(
            self,
            labels=labels,
            index=self.index.hide(said.gone),
            memory=memory,
            example_labels=example_labels,
            examples=examples,
            given=self._given(said),
            change=changes[-1].number,
        )
        return after._searched(changed)

    def _state(self) -> LabelState:
        return LabelState(self.bundle, self.labels, self.examples, self.given)

    def _encode(
        self, new: Sequence[str], forgotten: Sequence[tuple[str, int | None]]
    ) -> tuple[NDArray[np.float32], list[tuple[NDArray[np.int64], int | None]]]:
        """The vectors (len(new), dim) of examples by their keys, and which of the training's examples (rows of the
        memory) those are that shall be forgotten, each with the label row, None for all."""
        # Only of the memory can be told which text an example of the training was.
        sought = [] if self.finder is None else list(dict.fromkeys(key for key, _ in forgotten))
        texts, fields = [], []
        for key in (*new, *sought):
            text, said = json.loads(key)
            texts.append(text)
            fields.append(known_fields(self.bundle.manifest.features, said, "query"))
        vectors = encode_known(self.bundle.queries, texts, fields)
        same = {
            key: self.finder.find(vector)
            for key, vector in zip(sought, vectors[len(new) :], strict=True)
            if self.finder is not None and vector.any()
        }
        return vectors[: len(new)], [(same[key], row) for key, row in forgotten if key in same]

    def _given(self, said: _Said) -> Map[int, NDArray[np.float32]]:
        """The vectors that labels were put with last; one of another length belongs to a model with another dim."""
        given = self.given.mutate()
        for row in said.gone:
            given.pop(row, None)
        for row, put in said.puts.items():
            given.pop(row, None)
            if put.vector is not None and len(put.vector) == self.bundle.manifest.dim:
                given[row] = np.array(put.vector, dtype=np.float32)
        return given.finish()

    def _searched(self, changed: list[int]) -> Snapshot:
        """With the vectors of these live labels as they are now; what the bundle has is searched there."""
        state = self._state()
        as_trained = [row for row in changed if state.unchanged(row)]
        known = np.any(self.bundle.sums[as_trained], axis=1)
        restored = np.array(as_trained, dtype=np.int64)
        rows = np.setdiff1d(np.array(changed, dtype=np.int64), restored)
        vectors = state.vectors(rows.tolist())
        # Of a label that was put under another model, this one may know nothing at all.
        silent = ~np.any(vectors, axis=1)
        index = self.index.restore(restored[known]).add(rows[~silent], vectors[~silent])
        return replace(self, index=index.hide(np.concatenate([restored[~known], rows[silent]])))

    def _remember(
        self,
        draft: ExampleDraft,
        said: _Said,
        labels: LiveLabels,
        examples: AddedExamples,
        forgotten: list[tuple[NDArray[np.int64], int | None]],
    ) -> tuple[LayeredIndex | None, ExampleLabels]:
        """The memory with new examples, and without those that no live label has any more; and who has which."""
        if self.memory is None:
            return None, replace(self.example_labels, added=examples.pairs)
        count, dropped = len(self.bundle.example_labels), self.example_labels.dropped.mutate()
        for rows, label in forgotten:
            for example in rows.tolist():
                own = self.bundle.example_labels[example].tolist()
                gone = own if label is None else [row for row in own if row == label]
                dropped[example] = tuple({*dropped.get(example, ()), *gone})
        example_labels = replace(self.example_labels, added=examples.pairs, dropped=dropped.finish())
        touched = np.unique(np.concatenate([self._examples_of(said.gone), *(rows for rows, _ in forgotten)]))
        lengths, carried, _ = example_labels.of(touched)
        live = np.bincount(np.repeat(np.arange(len(touched)), lengths)[~labels.gone(carried)], minlength=len(touched))
        memory = self.memory.hide(np.concatenate([touched[live == 0], count + np.array(draft.lost, dtype=np.int64)]))
        new = np.array(list(draft.new), dtype=np.int64)
        vectors = examples.vectors.values[new]
        known = np.any(vectors, axis=1)
        twins = example_labels.twins.mutate()
        for number in draft.lost:
            twins.pop(number, None)
        twins.update(_twins(self.finder, new[known], vectors[known]))
        return memory.add(count + new[known], vectors[known]), replace(example_labels, twins=twins.finish())

    def _examples_of(self, labels: Sequence[int]) -> NDArray[np.int64]:
        """The training's examples of any of these labels, rows of the memory."""
        base = self.bundle.example_labels
        rows = np.array([row for row in labels if row < len(self.bundle.labels)], dtype=np.int64)
        if not len(rows):
            return rows
        # One look at all pairs is quicker than it would be to keep them the other way round.
        pairs = np.flatnonzero(base.values == rows[0] if len(rows) == 1 else np.isin(base.values, rows))
        return np.searchsorted(base.offsets, pairs, side="right") - 1


def _twins(
    finder: ExampleFinder | None, numbers: NDArray[np.int64], vectors: NDArray[np.float32]
) -> dict[int, tuple[int, ...]]:
    """Of these added examples those that are the training's, too, with their rows there."""
    if finder is None:
        return {}
    which, places = finder.pairs(vectors)
    first = np.flatnonzero(np.diff(which, prepend=-1))
    # Of no pairs there are no first ones, yet one part, which is empty.
    parts = zip(numbers[which[first]].tolist(), np.split(places, first[1:]), strict=False)
    return {number: tuple(rows.tolist()) for number, rows in parts}


class _Said:
    """What changes come to for labels, by their rows: `puts` that stand, labels that are `gone`, and of which label
    (None: of any) the example of a key is `forgotten`."""

    def __init__(self) -> None:
        self.puts: dict[int, PutLabel] = {}
        self.gone: list[int] = []
        self.forgotten: list[tuple[str, int | None]] = []

    def take(self, what: LabelChange, rows: Sequence[int | None], draft: ExampleDraft) -> None:
        """The next change with the rows of the labels that it names, None where there is no such label."""
        match what:
            case PutLabel(examples=texts):
                (row,) = rows
                assert row is not None  # noqa: S101 - every put has one
                self.puts[row] = what
                draft.clear(row)
                for text in texts:
                    draft.tell(example_key(text, None), row, True)
            case RemoveLabel() if rows[0] is not None:
                self.puts.pop(rows[0], None)
                self.gone.append(rows[0])
                draft.clear(rows[0])
            case Feedback(text=text, right=right, fields=fields):
                key = example_key(text, fields)
                for place, row in enumerate(rows):
                    if row is not None:
                        draft.tell(key, row, place < len(right))
            case RemoveExample(text=text, label=label, fields=fields):
                row = rows[0] if label is not None else None
                if label is None or row is not None:
                    key = example_key(text, fields)
                    draft.forget(key, row)
                    self.forgotten.append((key, row))
