"""A run to a bundle: towers as ONNX, label vectors, example memory, FAISS indexes, ranking chosen on dev."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.bags import Bags
from index.build import BUILD_EFFORT, IndexReport, build_index
from index.bundle import Manifest, featurizers, seal_files, write_manifest
from index.collection import add_bundle, create_collection
from index.encoder import Encoder
from index.errors import LabelspaceError
from index.fielded import FieldedTokens
from index.files import write_json
from index.known_rows import save_known
from index.label_vector import unit, unknown_rows
from index.labels import LabelTable
from index.layered import LayeredIndex, Neighbours
from index.memory import ExampleLabels
from index.packed import Lists
from index.ranking import CANDIDATES, Ranking
from index.tokens import Tokens
from training.config import load_config
from training.dataset import Dataset, KnownRows, load_dataset
from training.members import Members, member_runs, touched_rows
from training.ranking_choice import DevNeighbours, choose_ranking
from training.run import CONFIG, check_corpus_unchanged, corpus_of, run_lexicon
from training.tower import Items

Report = Callable[[str], None]
# By precision of the table, for towers that read one.
AGREEMENT = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-2}
_TOKEN_AGREEMENT = 1e-4
_CHECKED_TEXTS = 256
# Votes are sums over many neighbours: one missed among the last changes little, and finding it costs as much again.
_MEMORY_RECALL = 0.95
_MEMORY_EFFORT = 200


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What the exported towers make of the dataset: label sums, and unit vectors of examples and dev; all (n, dim)."""

    sums: NDArray[np.float32]
    examples: NDArray[np.float32]
    dev: NDArray[np.float32]


def export_run(
    run: Path,
    collection: Path,
    *,
    corpus: Path | None = None,
    recall: float = 0.99,
    dim: int | None = None,
    precision: str = "fp32",
    report: Report,
) -> str:
    """Write the run's model as the collection's next bundle and make it current; returns the bundle's id.

    The checkpoint is the best by dev. corpus: where the run's corpus is now, if it has moved since the training. dim:
    leading dimensions to keep of the vectors (nested prefixes), None for all. precision: of the towers' tables in the
    bundle, "fp32", "fp16" or "int8".
    Raises InputError when the run and the corpus do not belong together, LabelspaceError when an exported tower
    disagrees with torch by more than 1e-5 or the disk refuses; the collection is then as it was.
    """
    members = member_runs(run)
    config = load_config(members[0] / CONFIG)
    known = touched_rows(members) if config.tower.kind == "unified" else None
    dataset = load_dataset(corpus or corpus_of(members[0]), config, run_lexicon(members[0], config), known)
    for member in members:
        check_corpus_unchanged(member, dataset)
    models = Members.load(run, dataset, dim, report)
    create_collection(collection)
    exporter = _Exporter(models, dataset, recall, precision, report, known)
    return add_bundle(collection, models.model_id, exporter.fill)


class _Exporter:
    def __init__(
        self,
        models: Members,
        dataset: Dataset,
        recall: float,
        precision: str,
        report: Report,
        known: KnownRows | None = None,
    ) -> None:
        self.models, self.config, self.dataset, self.known = models, models.config, dataset, known
        self.recall, self.precision, self.report = recall, precision, report

    def fill(self, folder: Path, bundle: str) -> None:
        """Write every file of the bundle into an empty folder."""
        self.models.write_towers(folder, self.precision)
        if self.dataset.lexicon is not None:
            self.dataset.lexicon.save(folder)
        if self.known is not None:
            save_known(folder, self.known)
        vectors = self._encode(folder)
        carried = self._carried()
        LabelTable.pack(self.dataset.label_ids, self.dataset.label_texts).save(folder)
        np.save(folder / "vectors.npy", vectors.sums)
        carried.save(folder, "memory.labels")
        index, index_report = self._build("label index", unit(vectors.sums), vectors.dev, self.recall)
        faiss.write_index(index, str(folder / "index.faiss"))
        found = LayeredIndex.over(index).hide(unknown_rows(vectors.sums)).search(vectors.dev, CANDIDATES)
        examples, memory_report = self._memory(folder, vectors)
        near = DevNeighbours(found, examples, ExampleLabels(carried, np.zeros(0, dtype=np.int64)))
        positives = max(1, round(int(self.dataset.counts.sum()) / self.dataset.examples))
        draft = Ranking(self.config.loss.temperature, positives, 0.0, self.config.memory.neighbours)
        ranking, calibration = choose_ranking(self.dataset, near, draft, self.report)
        if not ranking.memory_weight:
            (folder / "memory.faiss").unlink(missing_ok=True)
        write_json(folder / "calibration.json", calibration.to_json())
        kept = memory_report if ranking.memory_weight else None
        if kept is not None:
            size = (folder / "memory.faiss").stat().st_size
            self.report(f"example memory: {len(vectors.examples)} examples, {size / 1e6:.0f} MB of memory and disk")
        write_manifest(folder, self._manifest(folder, bundle, ranking, index_report, kept))

    def _carried(self) -> Lists:
        """The label rows of each example: all, none, or those of labels with enough training queries."""
        relevance, config = self.dataset.relevance[: self.dataset.examples], self.config.memory
        if config.mode == "head":
            tail = self.dataset.counts[relevance.indices] < config.head_rows
            relevance.data[tail] = 0.0
            relevance.eliminate_zeros()
        return Lists(relevance.indptr.astype(np.int64), relevance.indices.astype(np.int32))

    def _memory(self, folder: Path, vectors: _Vectors) -> tuple[Neighbours | None, IndexReport | None]:
        """The memory's index, written, and what it finds for dev; nothing where it is off."""
        if self.config.memory.mode == "off":
            self.report("example memory: off")
            return None, None
        memory, report = self._build("example memory", vectors.examples, vectors.dev, _MEMORY_RECALL, _MEMORY_EFFORT)
        faiss.write_index(memory, str(folder / "memory.faiss"))
        return LayeredIndex.over(memory).search(vectors.dev, self.config.memory.neighbours), report

    def _encode(self, folder: Path) -> _Vectors:
        threads, dataset = self.config.training.threads, self.dataset
        for_queries, for_labels = featurizers(folder, self.models.spec, threads=threads)
        queries = Encoder(folder / "query.onnx", for_queries, threads=threads)
        labels = Encoder(folder / "label.onnx", for_labels, threads=threads)
        for items in (dataset.queries, dataset.dev.items):
            self._check_agreement(queries, items, self.models.encode_queries)
        self._check_agreement(labels, dataset.labels, self.models.encode_labels)
        # Without a text, fields and a training query nothing is known of a label. With queries, its free vector was
        # trained beside what the tower says of an empty text, and means nothing without it.
        said = dataset.label_fields or [None] * len(dataset.label_texts)
        pairs = zip(dataset.label_texts, said, strict=True)
        blank = np.array([not text.strip() and not fields for text, fields in pairs])
        sums = self.models.label_sums(dataset.labels, blank & (dataset.counts == 0))
        examples = dataset.queries.take(np.arange(dataset.examples))
        self.report(f"encoded {len(sums)} labels and {len(examples)} examples")
        return _Vectors(sums, queries.items(_padding(examples)), queries.items(_padding(dataset.dev.items)))

    def _check_agreement(
        self, encoder: Encoder, items: Items, torch_encode: Callable[[Items], NDArray[np.float32]]
    ) -> None:
        most = AGREEMENT[self.precision] if self.config.tower.kind == "unified" else _TOKEN_AGREEMENT
        some = items.take(np.arange(min(len(items), _CHECKED_TEXTS)))
        difference = np.abs(encoder.items(_padding(some)) - torch_encode(some)).max(initial=0.0)
        if difference > most:
            raise LabelspaceError(f"the ONNX tower differs from torch by {difference:.1e}, more than {most:.0e}")

    def _build(
        self,
        what: str,
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
        target: float,
        effort: int = BUILD_EFFORT,
    ) -> tuple[faiss.Index, IndexReport]:
        faiss.omp_set_num_threads(self.config.training.threads)
        index, built = build_index(vectors, queries, target=target, build_effort=effort)
        line = f"{what}: {built.factory} over {built.vectors} vectors, recall@10 {built.recall:.4f}"
        self.report(line if built.recall >= target else f"{line}, short of {target}")
        return index, built

    def _manifest(
        self, folder: Path, bundle: str, ranking: Ranking, index: IndexReport, memory: IndexReport | None
    ) -> Manifest:
        packages = ("labelspace", "numpy", "torch", "faiss-cpu", "onnx", "onnxruntime")
        return Manifest(
            bundle=bundle,
            model=self.models.model_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dim=self.models.dim,
            labels=len(self.dataset.label_ids),
            examples=self.dataset.examples,
            change=0,
            features=self.models.spec,
            ranking=ranking,
            index=index,
            memory=memory,
            versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
            files=seal_files(folder),
        )


def _padding(items: Items) -> Bags | Tokens | FieldedTokens:
    """The same, known to be what an exported tower takes."""
    assert isinstance(items, Bags | Tokens | FieldedTokens)  # noqa: S101 - there are no other towers
    return items
