"""A run to a bundle: towers as ONNX, label vectors, example memory, FAISS indexes, ranking chosen on dev."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.addition import Addition, write_addition
from index.bags import Bags
from index.build import IndexReport, build_index
from index.bundle import Manifest, featurizers, seal_files, write_manifest
from index.bundles import add_bundle
from index.collection_folder import create_collection
from index.dev_queries import DevQuery, write_dev
from index.device import faiss_versions
from index.encode_shards import SHARD_ROWS, Towers, encode_shards, item_shards, open_shard
from index.encoder import Encoder
from index.errors import BundleError, LabelspaceError
from index.fielded import FieldedTokens
from index.files import sha256_of, write_json
from index.known_rows import save_known
from index.label_vector import unit, unknown_rows
from index.labels import LabelTable
from index.layered import LayeredIndex, Neighbours
from index.memory import ExampleLabels
from index.packed import Lists
from index.ranking import CANDIDATES, Ranking
from index.reindex_build import MEMORY_EFFORT, MEMORY_RECALL
from index.reindex_work import filling, mark_export
from index.tokens import Tokens
from training.checkpoint import BEST, CHECKPOINT
from training.config import load_config
from training.dataset import Dataset, KnownRows, load_dataset
from training.dev_split import dev_split
from training.members import Members, member_runs, touched_rows
from training.progress import Progress
from training.ranking_choice import DevNeighbours, choose_ranking
from training.run import CONFIG, check_corpus_unchanged, corpus_of, run_lexicon
from training.tower import Items

Report = Callable[[str], None]
# By precision of the table, for towers that read one.
AGREEMENT = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-2}
_TOKEN_AGREEMENT = 1e-4
_CHECKED_TEXTS = 256
# More texts than these are encoded in shards that outlive a kill, where a job has a place for them.
_LARGE = 100_000


@dataclass(frozen=True, slots=True)
class _Vectors:
    """What the exported towers make of the dataset: label sums, and unit vectors of examples and dev; all (n, dim)."""

    sums: NDArray[np.float32]
    examples: NDArray[np.float32]
    dev: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExportJob:
    """A re-index job that wants the bundle to begin from. key: of the job. work: the folder of the collection's jobs.

    processes: that encode.
    """

    key: str
    work: Path
    processes: int


def run_state(run: Path) -> str:
    """The run, and in which state it is: what decides its bundle, beside how it is exported.

    Raises InputError when there is no run, BundleError when it has no checkpoint yet.
    """
    digest = hashlib.sha256()
    for member in member_runs(run):
        corpus_of(member)
        checkpoint = member / (BEST if (member / BEST).is_file() else CHECKPOINT)
        if not checkpoint.is_file():
            raise BundleError(f"{checkpoint}: there is no checkpoint yet; train the run first")
        digest.update(f"{member.name} {sha256_of(member / CONFIG)} {sha256_of(checkpoint)}".encode())
    return f"run {run.resolve()} {digest.hexdigest()[:16]}"


def export_run(  # noqa: PLR0913 - one parameter an option of the command
    run: Path,
    collection: Path,
    *,
    corpus: Path | None = None,
    recall: float = 0.99,
    dim: int | None = None,
    precision: str = "fp32",
    report: Report,
    promote: bool = True,
    job: ExportJob | None = None,
) -> str:
    """Write the run's model as the collection's next bundle and make it current; returns the bundle's id.

    The checkpoint is the best by dev. corpus: where the run's corpus is now, if it has moved since the training. dim:
    leading dimensions to keep of the vectors (nested prefixes), None for all. precision: of the towers' tables in the
    bundle, "fp32", "fp16" or "int8". promote: False leaves current what is. job: that the bundle is marked for, and
    that keeps what it encodes.
    Raises InputError when the run and the corpus do not belong together, LabelspaceError when an exported tower
    disagrees with torch by more than 1e-5 or the disk refuses; the collection is then as it was.
    """
    members = member_runs(run)
    config = load_config(members[0] / CONFIG)
    known = touched_rows(members) if config.tower.kind == "unified" else None
    place = corpus or corpus_of(members[0])
    # Before the dataset, and gone with the texts again: of what was prepared there are none left.
    dev = dev_split(place, config.features.fields, config.training.dev_share)
    dataset = load_dataset(place, config, run_lexicon(members[0], config), known)
    for member in members:
        check_corpus_unchanged(member, dataset)
    models = Members.load(run, dataset, dim, report)
    create_collection(collection)
    exporter = _Exporter(models, dataset, recall, precision, report, known, dev, job)

    def fill(folder: Path, bundle: str) -> None:
        with nullcontext() if job is None else filling(job.work, folder):
            exporter.fill(folder, bundle)

    return add_bundle(collection, models.model_id, fill, promote=promote)


class _Exporter:
    def __init__(
        self,
        models: Members,
        dataset: Dataset,
        recall: float,
        precision: str,
        report: Report,
        known: KnownRows | None = None,
        dev: Sequence[DevQuery] = (),
        job: ExportJob | None = None,
    ) -> None:
        self.models, self.config, self.dataset, self.known = models, models.config, dataset, known
        self.recall, self.precision, self.report = recall, precision, report
        self.dev, self.job = dev, job

    def fill(self, folder: Path, bundle: str) -> None:
        """Write every file of the bundle into an empty folder."""
        self.models.write_towers(folder, self.precision)
        if self.dataset.lexicon is not None:
            self.dataset.lexicon.save(folder)
        if self.known is not None:
            save_known(folder, self.known)
        vectors = self._encode(folder)
        carried = self._carried()
        LabelTable.pack(self.dataset.label_ids, self.dataset.label_texts, self.dataset.kept_fields).save(folder)
        np.save(folder / "vectors.npy", vectors.sums)
        write_dev(folder, self.dev)
        if self.job is not None:
            mark_export(folder, self.job.key)
        carried.save(folder, "memory.labels")
        index, index_report = self._build("label index", unit(vectors.sums), vectors.dev, self.recall, rescore=True)
        faiss.write_index(index, str(folder / "index.faiss"))
        served = LayeredIndex.over(index, vectors.sums, rescore=index_report.rescore)
        found = served.hide(unknown_rows(vectors.sums)).search(vectors.dev, CANDIDATES)
        examples, memory_report = self._memory(folder, vectors)
        near = DevNeighbours(found, examples, ExampleLabels(carried))
        positives = max(1, round(int(self.dataset.counts.sum()) / self.dataset.examples))
        draft = Ranking(self.config.loss.temperature, positives, 0.0, self.config.memory.neighbours)
        ranking, calibration = choose_ranking(self.dataset, near, draft, self.report)
        if not ranking.memory_weight:
            (folder / "memory.faiss").unlink(missing_ok=True)
        write_json(folder / "calibration.json", calibration.to_json())
        addition = write_addition(folder, vectors.examples)
        kept = memory_report if ranking.memory_weight else None
        if kept is not None:
            size = (folder / "memory.faiss").stat().st_size
            self.report(f"example memory: {len(vectors.examples)} examples, {size / 1e6:.0f} MB of memory and disk")
        write_manifest(folder, self._manifest(folder, bundle, ranking, index_report, kept, addition))

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
        memory, report = self._build("example memory", vectors.examples, vectors.dev, MEMORY_RECALL, MEMORY_EFFORT)
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
        return _Vectors(sums, self._examples(folder, queries, examples), queries.items(_padding(dataset.dev.items)))

    def _examples(self, folder: Path, queries: Encoder, examples: Items) -> NDArray[np.float32]:
        """Their unit vectors (n, dim)."""
        items = _padding(examples)
        if self.job is None or len(items) <= _LARGE:
            return queries.items(items)
        digest = f"{self.models.model_id} {self.precision} {self.dataset.fingerprint}"
        kept, towers = self.job.work / self.job.key / "examples", Towers(folder, self.models.spec)
        with Progress("encoding examples", len(items), "texts") as progress:
            shards = item_shards(items, "query", digest)
            encode_shards(kept, shards, towers, processes=self.job.processes, advance=progress.advance)
        return np.concatenate([open_shard(kept, number) for number in range(-(-len(items) // SHARD_ROWS))])

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
        effort: int | None = None,
        *,
        rescore: bool = False,
    ) -> tuple[faiss.Index, IndexReport]:
        faiss.omp_set_num_threads(self.config.training.threads)
        index, built = build_index(vectors, queries, target=target, build_effort=effort, rescore=rescore)
        line = f"{what}: {built.factory} over {built.vectors} vectors, recall@10 {built.recall:.4f}"
        self.report(line if built.recall >= target else f"{line}, short of {target}")
        return index, built

    def _manifest(
        self,
        folder: Path,
        bundle: str,
        ranking: Ranking,
        index: IndexReport,
        memory: IndexReport | None,
        addition: Addition,
    ) -> Manifest:
        packages = ("labelspace", "numpy", "torch", "onnx", "onnxruntime")
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
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in packages},
                **faiss_versions(),
            },
            files=seal_files(folder),
            addition=addition,
        )


def _padding(items: Items) -> Bags | Tokens | FieldedTokens:
    """The same, known to be what an exported tower takes."""
    assert isinstance(items, Bags | Tokens | FieldedTokens)  # noqa: S101 - there are no other towers
    return items
