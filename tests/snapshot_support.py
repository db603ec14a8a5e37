"""A bundle with an example memory, changes to it, and a plain float64 model of what they come to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.addition import added_vectors
from index.build import open_index
from index.bundle import Bundle
from index.changes import Change, Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.facets import fields_text
from index.labels import LabelTable
from index.packed import Lists, PackedStrings
from index.snapshot import Snapshot

Vector = NDArray[np.float64]
WEIGHT = 0.4
# Kinds of index that keep examples: exact, as graphs, in lists, in fewer bits.
MEMORIES = ("Flat", "HNSW16,Flat", "HNSW16,SQ8", "SQ8", "IVF16,SQ8", "IVF16,Flat", "IVF4,PQ8x4,Refine(SQ8)")


def remembering(collection: Path, corpus: Path) -> tuple[Bundle, list[str]]:
    """The tiny collection's bundle as if dev had chosen a memory, and the texts of its examples."""
    (folder,) = (collection / "bundles").iterdir()
    bundle = Bundle.open(folder)
    with gzip.open(corpus / "train.jsonl.gz", "rt") as lines:
        every = [json.loads(line)["text"] for line in lines]
    vectors = bundle.queries.texts(every)
    texts = every[: len(bundle.example_labels)]
    memory = faiss.IndexFlatIP(bundle.manifest.dim)
    memory.add(vectors[: len(texts)])
    ranking = replace(bundle.manifest.ranking, memory_weight=WEIGHT, neighbours=8, memory_temperature=0.1)
    return replace(bundle, memory=memory, manifest=replace(bundle.manifest, ranking=ranking)), texts


def after(snapshot: Snapshot, *changes: LabelChange) -> Snapshot:
    """The state after these changes, taken over in one block."""
    return snapshot.after([Change(snapshot.change + place, what) for place, what in enumerate(changes, 1)])


def one_by_one(snapshot: Snapshot, *changes: LabelChange) -> Snapshot:
    for what in changes:
        snapshot = after(snapshot, what)
    return snapshot


@dataclass
class _Label:
    text: str
    fields: Mapping[str, object]
    given: tuple[float, ...] | None = None
    trained: int | None = None
    put: bool = False


@dataclass
class Model:
    """Everything by dictionaries and loops; cosines in float64. `row` of a label is that of its arrival."""

    bundle: Bundle
    texts: Sequence[str]
    labels: dict[int, _Label] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    base: list[set[int]] = field(default_factory=list)
    added: dict[str, dict[int, bool]] = field(default_factory=dict)
    next_row: int = 0

    @classmethod
    def of(cls, bundle: Bundle, texts: Sequence[str]) -> Model:
        model = cls(bundle, texts)
        for row in range(len(bundle.labels)):
            label = bundle.labels[row]
            model.labels[row], model.ids[label.id] = _Label(label.text, label.fields or {}, trained=row), row
        model.base = [set(bundle.example_labels[place].tolist()) for place in range(len(texts))]
        model.next_row = len(bundle.labels)
        return model

    def apply(self, change: LabelChange) -> None:
        match change:
            case PutLabel():
                self._put(change)
            case RemoveLabel() if change.id in self.ids:
                row = self.ids.pop(change.id)
                self._clear(row)
                del self.labels[row]
                for own in self.base:
                    own.discard(row)
            case Feedback():
                for names, right in ((change.right, True), (change.wrong, False)):
                    for name in names:
                        if name in self.ids:
                            self.added.setdefault(change.text, {})[self.ids[name]] = right
            case RemoveExample(label=None):
                self._forget(change.text, None)
            case RemoveExample() if change.label in self.ids:
                self._forget(change.text, self.ids[change.label])

    def vector(self, row: int) -> Vector:
        label, dim = self.labels[row], self.bundle.manifest.dim
        right = [text for text, pairs in self.added.items() if pairs.get(row)]
        sums = np.zeros(dim) if label.trained is None else self.bundle.sums[label.trained].astype(np.float64)
        if label.given is not None:
            return unit(np.array(label.given))
        if not label.put and not right:
            return unit(sums)
        if label.trained is not None:
            old = self.bundle.labels[label.trained].text
            sums = sums - self.bundle.label_texts.texts([old])[0]
        text = self.bundle.label_texts.texts([label.text])[0] if label.text.strip() else np.zeros(dim)
        examples = self.bundle.queries.texts(right) if right else np.zeros((0, dim), dtype=np.float32)
        made = added_vectors(
            text[None].astype(np.float32),
            sums[None].astype(np.float32),
            examples.astype(np.float64).sum(axis=0)[None],
            np.array([[len(right)]], dtype=np.float32),
            self.bundle.manifest.addition,
            label_map=self.bundle.label_map,
        )
        return np.asarray(made[0], dtype=np.float64)

    def vectors(self) -> dict[int, Vector]:
        """Of all labels, by their rows."""
        return {row: self.vector(row) for row in self.labels}

    def ranked(
        self, query: NDArray[np.float32], vectors: Mapping[int, Vector], only: Mapping[str, object] | None = None
    ) -> list[tuple[int, float]]:
        """Every label that may be shown with its score, best first. There are fewer labels than CANDIDATES."""
        ranking, wide = self.bundle.manifest.ranking, query.astype(np.float64)
        cosines = {row: float(wide @ vector) for row, vector in vectors.items() if vector.any()}
        order = sorted(cosines.values(), reverse=True)
        negatives = order[min(ranking.positives, max(0, len(order) - 1)) :]
        threshold = np.logaddexp.reduce(np.array(negatives) / ranking.temperature)
        votes, share = self.votes(wide), ranking.memory_weight
        scores = {}
        for row in {*cosines, *(row for row, vote in votes.items() if vote > 0)}:
            own = 1 / (1 + np.exp(threshold - cosines[row] / ranking.temperature)) if row in cosines else 0.0
            scores[row] = max(0.0, (1 - share) * own + share * votes.get(row, 0.0))
        shown = [row for row in scores if only is None or self._matches(row, only)]
        return [(row, scores[row]) for row in sorted(shown, key=lambda row: (-scores[row], row))]

    def votes(self, query: Vector) -> dict[int, float]:
        ranking, keys = self.bundle.manifest.ranking, self.keys()
        if not keys:
            return {}
        cosines = np.array([vector @ query for vector, _ in keys])
        nearest = np.argsort(-cosines, kind="stable")[: ranking.neighbours]
        shares = np.exp((cosines[nearest] - cosines[nearest].max()) / ranking.memory_temperature)
        votes: dict[int, float] = {}
        for place, share in zip(nearest, shares / shares.sum(), strict=True):
            for row, right in keys[place][1]:
                votes[row] = votes.get(row, 0.0) + (share if right else -share)
        factor = self.bundle.manifest.addition.votes
        new = {row for row, label in self.labels.items() if label.trained is None}
        return {row: min(1.0, max(-1.0, vote * (factor if row in new else 1.0))) for row, vote in votes.items()}

    def keys(self) -> list[tuple[Vector, set[tuple[int, bool]]]]:
        """The memory: every vector with what it says of which labels. What was added of an example that is there goes
        to the first that is it."""
        alive = [(text, {(row, True) for row in own}) for text, own in zip(self.texts, self.base, strict=True) if own]
        added = [(text, set(pairs.items())) for text, pairs in self.added.items() if pairs]
        vectors = self.bundle.queries.texts([text for text, _ in (*alive, *added)]).astype(np.float64)
        keys = [(vector, pairs) for vector, (_, pairs) in zip(vectors, alive, strict=False)]
        for vector, (_, pairs) in zip(vectors[len(alive) :], added, strict=True):
            same = [own for other, own in keys[: len(alive)] if vector @ other > 1 - 1e-5]
            if same:
                same[0].update(pairs)
            elif vector.any():
                keys.append((vector, pairs))
        return keys

    def _put(self, put: PutLabel) -> None:
        row = self.ids.setdefault(put.id, self.next_row)
        self.next_row = max(self.next_row, row + 1)
        self._clear(row)
        old = self.labels.get(row)
        trained = None if old is None else old.trained
        self.labels[row] = _Label(put.text, put.fields or {}, put.vector, trained, True)
        for text in put.examples:
            self.added.setdefault(text, {})[row] = True

    def _forget(self, text: str, row: int | None) -> None:
        pairs = self.added.get(text, {})
        for label in [row] if row is not None else list(pairs):
            pairs.pop(label, None)
        for own, named in zip(self.base, self.texts, strict=True):
            if named == text:
                own -= own if row is None else {row}

    def _clear(self, row: int) -> None:
        for pairs in self.added.values():
            pairs.pop(row, None)

    def _matches(self, row: int, only: Mapping[str, object]) -> bool:
        for name, wanted in only.items():
            own, asked = self.labels[row].fields.get(name), wanted if isinstance(wanted, list) else [wanted]
            has = own if isinstance(own, (list, tuple)) else [own]
            if not any(type(one) is type(other) and one == other for one in has for other in asked):
                return False
        return True


def re_indexed(snapshot: Snapshot) -> Snapshot:
    """Of the bundle that a re-indexing would write of a snapshot with nothing removed."""
    old, rows = snapshot.bundle, np.arange(snapshot.labels.rows)
    labels = [snapshot.labels[int(row)] for row in rows]
    carried = snapshot.carried()
    vectors = snapshot.vectors(rows)
    sums = vectors.copy()
    unchanged = np.setdiff1d(rows, carried.labels.rows)
    sums[unchanged] = old.sums[unchanged]
    index, memory = faiss.IndexFlatIP(32), faiss.IndexFlatIP(32)
    index.add(vectors)
    assert snapshot.memory is not None and isinstance(old.memory, faiss.Index)
    shown = snapshot.shown_examples()
    trained = shown[shown < len(old.example_labels)]
    memory.add(np.stack([old.memory.reconstruct(int(row)) for row in trained]))
    memory.add(carried.examples.vectors)
    lengths, carries, _ = snapshot.example_labels.of(trained)
    lists = Lists(np.concatenate([[0], np.cumsum(lengths)]), carries.astype(np.int32))
    texts = [fields_text(label.fields) for label in labels]
    table = LabelTable.pack([label.id for label in labels], [label.text for label in labels], PackedStrings.pack(texts))
    new = replace(
        old, labels=table, sums=sums, index=index, memory=memory, example_labels=lists, carried=carried,
        manifest=replace(old.manifest, change=snapshot.change, labels=len(labels)),
    )  # fmt: skip
    return Snapshot.of(new)


def opened_memory(factory: str, vectors: NDArray[np.float32], folder: Path) -> faiss.Index:
    """An example memory over these vectors, written and opened as a bundle's is."""
    memory = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    memory.train(vectors)
    memory.add(vectors)
    faiss.write_index(memory, str(folder / "memory.faiss"))
    return open_index(folder / "memory.faiss")


def placed(bundle: Bundle, vector: NDArray[np.float32]) -> Vector:
    """The text vector (dim,) of a label that training did not know, as it is searched."""
    assert bundle.label_map is not None
    return unit(vector.astype(np.float64) @ bundle.label_map.astype(np.float64))


def unit(vector: Vector) -> Vector:
    length = np.linalg.norm(vector)
    return vector / length if length else vector
