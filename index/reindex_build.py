"""The vectors and the two indexes of a re-indexed bundle, made in the job's folder; what is finished is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.build import IndexReport, build_index
from index.bundle import Bundle
from index.carried import Carried
from index.comparison import readable
from index.dev_queries import DevQuery
from index.errors import LabelspaceError, first_line
from index.files import replacing, sha256_of, write_json
from index.label_vector import unit
from index.packed import open_array
from index.snapshot import Snapshot

# Votes are sums over many neighbours: one missed among the last changes little, and finding it costs as much again.
MEMORY_RECALL = 0.95
MEMORY_EFFORT = 200
# Rows of vectors that are in memory at a time.
BLOCK = 1 << 16
_STAND_INS = 1000
# Of a unit vector that is moved so far at random, the cosine with what it was is 0.9: about what a query has.
_NOISE = 0.5

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Contents:
    """Which rows of a snapshot the new bundle takes over, in their order; all int64.

    labels: live label rows. places: (rows,), the new row of every label row, -1 for one that is gone. examples: rows of
    training examples whose vectors the memory still shows, or all of them without a memory. carried: as the snapshot
    has it, under the snapshot's label rows.
    """

    labels: NDArray[np.int64]
    places: NDArray[np.int64]
    examples: NDArray[np.int64]
    carried: Carried

    @classmethod
    def of(cls, snapshot: Snapshot) -> Contents:
        labels = np.fromiter((row for row, _ in snapshot.labels.after(None)), dtype=np.int64)
        places = np.full(snapshot.labels.rows, -1, dtype=np.int64)
        places[labels] = np.arange(len(labels))
        trained = len(snapshot.bundle.example_labels)
        examples = np.arange(trained)
        if snapshot.memory is not None:
            shown = snapshot.shown_examples()
            examples = shown[shown < trained]
        return cls(labels, places, examples, snapshot.carried())


@dataclass(frozen=True, slots=True)
class Built:
    """Files of built indexes and what they reached; without a memory the last two are None."""

    labels: Path
    label_report: IndexReport
    memory: Path | None
    memory_report: IndexReport | None


def build_both(
    folder: Path,
    snapshot: Snapshot,
    contents: Contents,
    queries: NDArray[np.float32],
    *,
    spec: str,
    recall: float,
    report: Report,
) -> Built:
    """The label index and the example memory in `folder`; those that are finished there are not built again.

    queries: (m, dim) unit vectors to tune on; none: vectors like the stored ones stand in for them.
    """
    dim = snapshot.bundle.manifest.dim
    served = map(ServedVectors(snapshot), blocks_of(contents.labels))
    vectors = _kept_array(folder / "vectors.npy", len(contents.labels), dim, served)

    def labels() -> tuple[faiss.Index, IndexReport]:
        tuned_on = queries if len(queries) else stand_ins(vectors)
        return build_index(vectors, tuned_on, spec=spec, target=recall, rescore=True)

    report(f"label index: {len(vectors)} vectors to build it over")
    label_report = _kept_index(folder, "index", labels)
    _say(report, "label index", label_report, recall)
    bundle = snapshot.bundle
    if bundle.memory is None or bundle.manifest.memory is None:
        return Built(folder / "index.faiss", label_report, None, None)
    if _is_untouched(bundle, contents):
        report(f"example memory: nothing changed in it, {bundle.memory.ntotal} examples are taken over")
        return Built(folder / "index.faiss", label_report, bundle.folder / "memory.faiss", bundle.manifest.memory)
    count = len(contents.examples) + len(contents.carried.examples)
    examples = _kept_array(folder / "examples.npy", count, dim, _example_vectors(bundle.memory, contents))

    def memory() -> tuple[faiss.Index, IndexReport]:
        tuned_on = queries if len(queries) else stand_ins(examples)
        return build_index(examples, tuned_on, target=MEMORY_RECALL, build_effort=MEMORY_EFFORT)

    report(f"example memory: {count} vectors to build it over")
    memory_report = _kept_index(folder, "memory", memory)
    _say(report, "example memory", memory_report, MEMORY_RECALL)
    return Built(folder / "index.faiss", label_report, folder / "memory.faiss", memory_report)


def tuning_vectors(snapshot: Snapshot, queries: Sequence[DevQuery]) -> NDArray[np.float32]:
    """What the query tower makes of these, (n, dim)."""
    if not queries:
        return np.zeros((0, snapshot.bundle.manifest.dim), dtype=np.float32)
    fields = [readable(snapshot, query.fields) for query in queries]
    return snapshot.bundle.queries.texts([query.text for query in queries], fields)


def stand_ins(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most 1,000 of the vectors (n, dim) that are not zero, moved at random, of unit length; always the same."""
    chooser = np.random.default_rng(0)
    drawn = np.sort(chooser.permutation(len(vectors))[: 2 * _STAND_INS])
    some = unit(np.asarray(vectors[drawn], dtype=np.float32))
    some = some[some.any(axis=1)][:_STAND_INS]
    noise = chooser.standard_normal(some.shape).astype(np.float32) * np.float32(_NOISE / some.shape[1] ** 0.5)
    return np.asarray(unit(some + noise), dtype=np.float32)


class ServedVectors:
    """The vectors of live labels exactly as a snapshot's searches compare them, by their rows."""

    def __init__(self, snapshot: Snapshot) -> None:
        bundle, index = snapshot.bundle, snapshot.index
        rows, self._since = index.delta_rows, index.delta_vectors
        self._order = np.argsort(rows, kind="stable")
        self._rows = rows[self._order]
        self._sums, self._shown, self._size = bundle.sums, index.base.shown, len(bundle.labels)
        # Of labels that were changed before this bundle was written it has the vector itself, of others a sum.
        self._as_is = bundle.carried.labels.rows

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(rows), dim); zero for a label of which nothing is known."""
        found = np.zeros((len(rows), self._sums.shape[1]), dtype=np.float32)
        inside = rows < self._size
        inside[inside] = self._shown.has(rows[inside])
        sums = np.asarray(self._sums[rows[inside]], dtype=np.float32)
        found[inside] = np.where(np.isin(rows[inside], self._as_is)[:, None], sums, unit(sums))
        if len(self._rows):
            places = np.minimum(np.searchsorted(self._rows, rows), len(self._rows) - 1)
            since = self._rows[places] == rows
            found[since] = self._since[self._order[places[since]]]
        return found


def label_sums(
    snapshot: Snapshot, served: ServedVectors, changed: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """What the new bundle keeps of these label rows, (n, dim): the vector as it is served of those that are `changed`,
    else the sum that training left."""
    found = np.empty((len(rows), snapshot.bundle.manifest.dim), dtype=np.float32)
    otherwise = np.isin(rows, changed)
    found[~otherwise] = snapshot.bundle.sums[rows[~otherwise]]
    found[otherwise] = served(rows[otherwise])
    return found


def write_array(path: Path, shape: tuple[int, int], blocks: Iterable[NDArray[np.float32]]) -> None:
    """A .npy file of float32, block after block: here a full disk is an OSError, in a memory map a crash."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=np.float32).data)


def blocks_of(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _example_vectors(memory: faiss.Index, contents: Contents) -> Iterator[NDArray[np.float32]]:
    for block in blocks_of(contents.examples):
        # Rows of one block lie close together: what is between them is few.
        first, last = int(block[0]), int(block[-1])
        for start in range(first, last + 1, BLOCK):
            count = min(BLOCK, last + 1 - start)
            here = block[(block >= start) & (block < start + count)]
            yield np.asarray(memory.reconstruct_n(start, count), dtype=np.float32)[here - start]
    vectors = contents.carried.examples.vectors
    yield from (np.asarray(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK))


def _is_untouched(bundle: Bundle, contents: Contents) -> bool:
    before = len(bundle.carried.examples)
    if len(contents.examples) < len(bundle.example_labels) or len(contents.carried.examples) != before:
        return False
    return list(contents.carried.examples.keys) == list(bundle.carried.examples.keys)


def _kept_array(path: Path, rows: int, dim: int, blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The array at `path`, by memory map, made of the blocks where it is not there; it appears whole or not at all."""
    if not path.exists():
        with replacing(path) as beside:
            write_array(beside, (rows, dim), blocks)
    found: NDArray[np.float32] = open_array(path)
    return found


def _kept_index(folder: Path, name: str, build: Callable[[], tuple[faiss.Index, IndexReport]]) -> IndexReport:
    """What is said of `name`.faiss in `folder`, which is built where it is not there as it was written."""
    path, note = folder / f"{name}.faiss", folder / f"{name}.json"
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        if sha256_of(path) == said["sha256"]:
            return IndexReport(**said["report"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    index, found = build()
    note.unlink(missing_ok=True)
    with replacing(path) as beside:
        try:
            faiss.write_index(index, str(beside))
        except RuntimeError as error:
            raise LabelspaceError(f"{path}: could not be written ({first_line(error)}); nothing was changed") from error
    write_json(note, {"report": asdict(found), "sha256": sha256_of(path)})
    return found


def _say(report: Report, what: str, built: IndexReport, target: float) -> None:
    line = f"{what}: {built.factory} over {built.vectors} vectors, recall@10 {built.recall:.4f}"
    report(line if built.recall >= target else f"{line}, short of {target}")
