"""A run to a bundle: towers as ONNX, label vectors, example memory, FAISS indexes, ranking chosen on dev."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from index.build import IndexReport, build_index
from index.bundle import Manifest, seal_files, write_manifest
from index.calibration import IDENTITY, Calibration, fit_calibration
from index.collection import add_bundle, create_collection
from index.encoder import Encoder
from index.errors import LabelspaceError
from index.features import Bags, Featurizer
from index.files import write_json
from index.label_vector import unit, unknown_rows
from index.labels import LabelTable
from index.layered import LayeredIndex, Neighbours
from index.memory import NEIGHBOURS, ExampleLabels, Votes, vote
from index.packed import Lists
from index.ranking import CANDIDATES, Predictions, Ranking, rank
from training.checkpoint import load_checkpoint
from training.config import Config, load_config
from training.dataset import Dataset, load_dataset
from training.dual_encoder import DualEncoder
from training.metrics import Judged, inverse_propensity
from training.onnx_graph import write_graph, write_table
from training.trainer import CONFIG, check_corpus_unchanged, corpus_of, load_model

Report = Callable[[str], None]
AGREEMENT = 1e-5
_CHECKED_TEXTS = 256
_MEMORY_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
_CALIBRATION_DEPTH = 20
# Votes are sums over many neighbours: one missed among the last changes little, and finding it costs as much again.
_MEMORY_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What the exported towers make of the dataset: label sums, and unit vectors of examples and dev; all (n, dim)."""

    sums: NDArray[np.float32]
    examples: NDArray[np.float32]
    dev: NDArray[np.float32]


def export_run(run: Path, collection: Path, *, corpus: Path | None = None, recall: float = 0.99, report: Report) -> str:
    """Write the run's model as the collection's next bundle and make it current; returns the bundle's id.

    corpus: where the run's corpus is now, if it has moved since the training.
    Raises InputError when the run and the corpus do not belong together, LabelspaceError when an exported tower
    disagrees with torch by more than 1e-5 or the disk refuses; the collection is then as it was.
    """
    config = load_config(run / CONFIG)
    dataset = load_dataset(corpus or corpus_of(run), config)
    check_corpus_unchanged(run, dataset)
    model = DualEncoder(config, dataset.counts)
    tensors, position = load_checkpoint(run)
    if position.epoch < config.training.epochs:
        report(f"{run}: stands at epoch {position.epoch + 1} of {config.training.epochs}; exported as it is")
    load_model(model, tensors)
    create_collection(collection)
    digest = hashlib.sha256(json.dumps(config.features.to_json()).encode())
    for name in sorted(tensors):
        if not name.startswith(("adagrad", "adamw")):
            digest.update(tensors[name].numpy().tobytes())
    exporter = _Exporter(model, config, dataset, digest.hexdigest()[:16], recall, report)
    return add_bundle(collection, exporter.model_id, exporter.fill)


class _Exporter:
    def __init__(
        self, model: DualEncoder, config: Config, dataset: Dataset, model_id: str, recall: float, report: Report
    ) -> None:
        self.model, self.config, self.dataset = model, config, dataset
        self.model_id, self.recall, self.report = model_id, recall, report

    def fill(self, folder: Path, bundle: str) -> None:
        """Write every file of the bundle into an empty folder."""
        self._write_towers(folder)
        vectors = self._encode(folder)
        relevance = self.dataset.relevance
        carried = Lists(relevance.indptr.astype(np.int64), relevance.indices.astype(np.int32))
        LabelTable.pack(self.dataset.label_ids, self.dataset.label_texts).save(folder)
        np.save(folder / "vectors.npy", vectors.sums)
        carried.save(folder, "memory.labels")
        index, index_report = self._build("label index", unit(vectors.sums), vectors.dev, self.recall)
        memory, memory_report = self._build("example memory", vectors.examples, vectors.dev, _MEMORY_RECALL)
        found = LayeredIndex.over(index).hide(unknown_rows(vectors.sums)).search(vectors.dev, CANDIDATES)
        examples = ExampleLabels(carried, np.zeros(0, dtype=np.int64))
        votes = vote(LayeredIndex.over(memory).search(vectors.dev, NEIGHBOURS), examples)
        ranking, calibration = self._choose(found, votes)
        faiss.write_index(index, str(folder / "index.faiss"))
        if ranking.memory_weight:
            faiss.write_index(memory, str(folder / "memory.faiss"))
        write_json(folder / "calibration.json", calibration.to_json())
        kept = memory_report if ranking.memory_weight else None
        write_manifest(folder, self._manifest(folder, bundle, ranking, index_report, kept))

    def _write_towers(self, folder: Path) -> None:
        table = self.model.embedding.folded()
        self.model.head.eval()
        write_table(folder, table)
        for name in ("query.onnx", "label.onnx"):
            write_graph(folder / name, self.model.head, (table.shape[0], table.shape[1]))

    def _encode(self, folder: Path) -> _Vectors:
        featurizer = Featurizer(self.config.features)
        encoder = Encoder(folder / "query.onnx", featurizer, threads=self.config.training.threads)
        dataset = self.dataset
        for bags in (dataset.queries, dataset.labels, dataset.dev.bags):
            self._check_agreement(encoder, bags)
        texts = encoder.bags(dataset.labels)
        # Without a text and a training query nothing is known of a label. With queries, its free vector was trained
        # beside what the tower says of an empty text, and means nothing without it.
        blank = np.array([not text.strip() for text in dataset.label_texts])
        texts[blank & (dataset.counts == 0)] = 0.0
        everything = torch.arange(len(texts))
        sums = self.model.label_sums(torch.from_numpy(texts), everything, self.model.free).numpy()
        self.report(f"encoded {len(texts)} labels and {len(dataset.queries)} examples")
        return _Vectors(sums, encoder.bags(dataset.queries), encoder.bags(dataset.dev.bags))

    def _check_agreement(self, encoder: Encoder, bags: Bags) -> None:
        some = bags.take(np.arange(min(len(bags), _CHECKED_TEXTS)))
        difference = np.abs(encoder.bags(some) - self.model.encode(some).numpy()).max(initial=0.0)
        if difference > AGREEMENT:
            raise LabelspaceError(f"the ONNX tower differs from torch by {difference:.1e}, more than {AGREEMENT:.0e}")

    def _build(
        self, what: str, vectors: NDArray[np.float32], queries: NDArray[np.float32], target: float
    ) -> tuple[faiss.Index, IndexReport]:
        faiss.omp_set_num_threads(self.config.training.threads)
        index, built = build_index(vectors, queries, target=target)
        line = f"{what}: {built.factory} over {built.vectors} vectors, recall@10 {built.recall:.4f}"
        self.report(line if built.recall >= target else f"{line}, short of {target}")
        return index, built

    def _manifest(
        self, folder: Path, bundle: str, ranking: Ranking, index: IndexReport, memory: IndexReport | None
    ) -> Manifest:
        packages = ("labelspace", "numpy", "torch", "faiss-cpu", "onnx", "onnxruntime")
        return Manifest(
            bundle=bundle,
            model=self.model_id,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            dim=self.config.tower.dim,
            labels=len(self.dataset.label_ids),
            examples=len(self.dataset.queries),
            change=0,
            features=self.config.features,
            ranking=ranking,
            index=index,
            memory=memory,
            versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
            files=seal_files(folder),
        )

    def _choose(self, found: Neighbours, votes: Votes) -> tuple[Ranking, Calibration]:
        """The memory weight with the best nDCG@5 + R@10 + PSP@5 on dev (head, depth and tail), and its calibration."""
        positives = max(1, round(self.dataset.relevance.nnz / len(self.dataset.queries)))
        draft = Ranking(self.config.training.temperature, positives, 0.0)
        truth = self.dataset.dev.relevance
        judged_rows = np.flatnonzero(np.diff(truth.indptr))
        if not len(judged_rows):
            self.report("no dev rows with labels: the memory is off, and probabilities are plain scores")
            return draft, IDENTITY
        weights = inverse_propensity(self.dataset.counts, len(self.dataset.queries))
        best: tuple[float, Ranking, Predictions, Judged] | None = None
        for memory_weight in _MEMORY_WEIGHTS:
            ranking = replace(draft, memory_weight=memory_weight)
            ranked = rank(found, votes, ranking, _CALIBRATION_DEPTH)
            judged = Judged.of(ranked.rows[judged_rows], truth[judged_rows])
            figures = (judged.ndcg(5), judged.recall(10), judged.propensity_precision(5, weights))
            shown = "nDCG@5 {:.1f}, R@10 {:.1f}, PSP@5 {:.1f}".format(*(100 * figure for figure in figures))
            self.report(f"dev, memory weight {memory_weight}: {shown}")
            if best is None or sum(figures) > best[0]:
                best = sum(figures), ranking, ranked, judged
        assert best is not None  # noqa: S101 - there are weights to try
        _, ranking, ranked, judged = best
        shown_places = judged.rows >= 0
        return ranking, fit_calibration(ranked.scores[judged_rows][shown_places], judged.hits[shown_places])
