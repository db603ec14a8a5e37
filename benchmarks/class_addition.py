"""Labels that come after the training: how well they are found, and what they cost the labels that were trained.

    python benchmarks/class_addition.py [DATASET]… [--split dev|test] [--runs DIR] [--ridge G]… [--set KEY=VALUE]…

DATASET: debian-depends, eurlex57k, clinc150 (all of them if none is named). A tenth of each one's labels is hidden from
train, drawn evenly over their frequencies; a model is trained without them and one with all. The hidden labels are then
put into the collection of the first, by their text alone, and with 1, 5, 20 and all their training texts as examples,
and what is served is judged beside what the model that knew them all serves. Training is done once, in DIR. `--ridge`
adds the calibration map at other strengths than the bundle's, as vectors that the labels are put with; it is what was
chosen on dev. Results go to benchmarks/results/class_addition.json, the picture to docs/images/class-addition.svg.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from class_addition_corpus import reduced_corpus, whole_corpus
from class_addition_plot import PICTURE, draw
from datasets import BUILD, DEBIAN, corpus_folder
from index.addition import Addition, added_vectors, measure_addition
from index.changes import PutLabel
from index.collection import Collection
from index.files import write_json
from index.label_vector import unit
from index.snapshot import Snapshot
from machine import RESULTS, describe, run
from training.corpus import Corpus, Split, load_corpus
from training.metrics import without

DATA = Path("..") / "shared" / "data"
FILE = RESULTS / "class_addition.json"
SOURCES = {DEBIAN: "debian", "eurlex57k": str(DATA / "eurlex57k"), "clinc150": str(DATA / "clinc150")}
# None: all that there are.
SHOTS = (0, 1, 5, 20, None)
DEPTH = 10
# Which examples a label is given is chance; with few labels it decides much.
DRAWS = {1: 3, 5: 3, 20: 2}
FEW_LABELS = 100
SERVED, CENTROID, PLAIN = "served", "centroid", "text and centroid"
FULL = "fully trained"


@dataclass(frozen=True, slots=True)
class Figures:
    """Percent, the new labels competing with all others.

    new_recall: R@10 of the new labels of the queries that have any; new_precision: P@1 of these queries. label_recall:
    share of a new label's queries that have it among the first 10, mean over the labels with any. old_recall: R@10 of
    the trained labels; old_precision: P@1 of the queries that have none but trained ones. recall, precision: R@10 and
    P@1 of all labels.
    """

    new_recall: float
    new_precision: float
    label_recall: float
    old_recall: float
    old_precision: float
    recall: float
    precision: float

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the R@10 of new and trained labels."""
        both = self.new_recall + self.old_recall
        return 2 * self.new_recall * self.old_recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way of making the new labels' vectors. shots: the most examples of a label, None for all. draws: of them."""

    dataset: str
    split: str
    way: str
    shots: int | None
    draws: int
    figures: Figures


def judge(ranked: NDArray[np.int64], truth: csr_matrix, new: NDArray[np.bool_]) -> Figures:
    """ranked: (queries, k) label rows, best first, -1 for none; truth: (queries, labels) CSR; new: (labels,)."""
    best = ranked[:, :DEPTH]
    queries = np.arange(len(best))[:, None]
    hits = (best >= 0) & (np.asarray(truth[queries, np.maximum(best, 0)].todense()).reshape(best.shape) > 0)
    of_new = hits & new[np.maximum(best, 0)]
    positives, new_positives = np.diff(truth.indptr), np.diff(csr_matrix(truth[:, new]).indptr)
    found, of_old = np.bincount(best[of_new], minlength=len(new)), hits.sum(axis=1) - of_new.sum(axis=1)
    carried = np.diff(csc_matrix(truth).indptr)
    asked = new & (carried > 0)
    old_positives = positives - new_positives
    return Figures(
        _percent(of_new.sum(axis=1), new_positives),
        _mean(hits[new_positives > 0, 0]),
        _percent(found[asked], carried[asked]),
        _percent(of_old, old_positives),
        _mean(hits[(new_positives == 0) & (old_positives > 0), 0]),
        _percent(hits.sum(axis=1), positives),
        _mean(hits[positives > 0, 0]),
    )


def drawn(relevance: csr_matrix, labels: Sequence[int], shots: int | None, seed: int) -> list[NDArray[np.int64]]:
    """At most `shots` of the queries of each label, drawn, ascending; relevance: (queries, labels) CSR."""
    columns = csc_matrix(relevance)
    random = np.random.default_rng([seed, 0 if shots is None else shots])
    found = []
    for label in labels:
        own = np.sort(columns.indices[columns.indptr[label] : columns.indptr[label + 1]]).astype(np.int64)
        few = own if shots is None or len(own) <= shots else np.sort(random.choice(own, shots, replace=False))
        found.append(few)
    return found


@dataclass(frozen=True, slots=True)
class Task:
    """A dataset with the collections of the two models. new: (labels,), which labels one of them has not met."""

    name: str
    corpus: Corpus
    split: str
    reduced: Path
    whole: Path
    new: NDArray[np.bool_]

    @property
    def asked(self) -> Split:
        return self.corpus.splits[self.split]

    def predict(self, snapshot: Snapshot) -> Figures:
        """What it serves for the split."""
        split, place = self.asked, {label: row for row, label in enumerate(self.corpus.label_ids)}
        depth = DEPTH + int(np.diff(split.excluded.indptr).max(initial=0))
        blocks = []
        for start in range(0, len(split), 1024):
            shown = snapshot.predict(split.texts[start : start + 1024], depth)
            known = [[place[snapshot.labels[row].id] if row >= 0 else -1 for row in one] for one in shown.rows.tolist()]
            blocks.append(without(np.array(known), shown.scores, split.excluded[start : start + 1024], DEPTH)[0])
        return judge(np.concatenate(blocks), split.relevance, self.new)


def trained(folder: Path, out: Path, settings: Sequence[str]) -> Path:
    """The collection of a model trained on the corpus in `folder`; kept beside its run in `out`."""
    collection = out / "collection"
    if not collection.exists():
        shutil.rmtree(out / "run", ignore_errors=True)
        run("train", folder, "--out", out / "run", *(f"--set={setting}" for setting in settings))
        run("export", out / "run", "--to", collection)
    return collection


def prepare(name: str, runs: Path, split: str, settings: Sequence[str]) -> Task:
    """Corpora, trainings and exports of a dataset, each where it is not there yet."""
    source, _ = corpus_folder(SOURCES[name])
    folder = runs / name
    whole = whole_corpus(source, folder / "whole-corpus")
    reduced = reduced_corpus(whole, folder / "reduced-corpus")
    corpus = load_corpus(whole, ["train", split])
    left = set(load_corpus(reduced, ["train"]).label_ids)
    return Task(
        name,
        corpus,
        split,
        trained(reduced, folder / "reduced", settings),
        trained(whole, folder / "whole", settings),
        np.array([label not in left for label in corpus.label_ids]),
    )


def puts(task: Task, snapshot: Snapshot, way: str, samples: Sequence[NDArray[np.int64]]) -> list[PutLabel]:
    """The changes that add the new labels: with a vector where `way` is not what is served."""
    rows, texts = np.flatnonzero(task.new).tolist(), task.corpus.splits["train"].texts
    examples = [tuple(texts[one] for one in sample) for sample in samples]
    vectors: list[tuple[float, ...] | None] = [None] * len(rows)
    if way != SERVED:
        vectors = [tuple(one) for one in made(task, snapshot, way, samples).tolist()]
    labels = zip(rows, examples, vectors, strict=True)
    return [
        PutLabel(task.corpus.label_ids[row], task.corpus.label_texts[row], own, vector if any(vector or ()) else None)
        for row, own, vector in labels
    ]


def made(task: Task, snapshot: Snapshot, way: str, samples: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """The new labels' vectors (new, dim) by the way of this name: of the centroid, by no map, or by "ridge G"."""
    train, bundle = task.corpus.splits["train"].texts, snapshot.bundle
    used = np.unique(np.concatenate(samples))
    place = {row: number for number, row in enumerate(used.tolist())}
    queries = bundle.queries.texts([train[row] for row in used]).astype(np.float64)
    dim = bundle.manifest.dim
    sums = np.zeros((len(samples), dim))
    for number, sample in enumerate(samples):
        sums[number] = queries[[place[row] for row in sample.tolist()]].sum(axis=0)
    if way == CENTROID:
        return np.asarray(unit(sums), dtype=np.float32)
    said = [task.corpus.label_texts[row] for row in np.flatnonzero(task.new)]
    texts = bundle.label_texts.texts(said)
    texts[[not text.strip() for text in said]] = 0.0
    settings, label_map = Addition(), None
    if way != PLAIN:
        settings, label_map = measure_addition(bundle.queries.texts(train), float(way.removeprefix("ridge ")))
    counts = np.array([[len(sample)] for sample in samples], dtype=np.float32)
    return added_vectors(texts, np.zeros_like(texts), sums, counts, settings, label_map=label_map)


def measure(task: Task, ways: Sequence[str]) -> Iterator[Row]:
    """The fully trained model, the other one before the labels are added, and after, by each way and count."""
    with Collection(task.whole) as collection:
        yield Row(task.name, task.split, FULL, None, 1, task.predict(collection.snapshot))
    with Collection(task.reduced) as collection:
        yield Row(task.name, task.split, "before", 0, 1, task.predict(collection.snapshot))
    labels = np.flatnonzero(task.new).tolist()
    relevance = task.corpus.splits["train"].relevance
    for shots in SHOTS:
        for way in ways:
            if way == CENTROID and shots == 0:
                continue
            draws = DRAWS.get(shots or 0, 1) if len(labels) < FEW_LABELS else 1
            found = [_added(task, way, drawn(relevance, labels, shots, seed)) for seed in range(draws)]
            yield Row(task.name, task.split, way, shots, draws, _average(found))


def _added(task: Task, way: str, samples: Sequence[NDArray[np.int64]]) -> Figures:
    """In a copy of the collection, so that every measurement starts from what was exported."""
    with tempfile.TemporaryDirectory(dir=task.reduced.parent) as folder:
        copy = shutil.copytree(task.reduced, Path(folder) / "collection")
        with Collection(copy) as collection:
            collection.write(puts(task, collection.snapshot, way, samples))
            return task.predict(collection.snapshot)


def _average(found: Sequence[Figures]) -> Figures:
    columns = zip(*(asdict(one).values() for one in found), strict=True)
    return Figures(*(statistics.fmean(column) for column in columns))


def _percent(won: NDArray[np.int64], of: NDArray[np.int64]) -> float:
    counted = of > 0
    return _mean(won[counted] / of[counted])


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return 100.0 * float(values.mean()) if len(values) else 0.0


def table(rows: Sequence[Row]) -> str:
    """One line a row, beside the fully trained model and the trained labels before the addition."""
    lines = []
    for row in rows:
        own = [one for one in rows if one.dataset == row.dataset]
        full, before = (next(one.figures for one in own if one.way == way) for way in (FULL, "before"))
        got, shots = row.figures, "all" if row.shots is None else row.shots
        share = 100 * got.new_recall / full.new_recall if full.new_recall else 0.0
        by_label = 100 * got.label_recall / full.label_recall if full.label_recall else 0.0
        lines.append(
            f"{row.dataset:<15} {row.way:<18} {shots:>4}  new R@10 {got.new_recall:5.1f} ({share:3.0f} % of full; by "
            f"label {by_label:3.0f} %) P@1 {got.new_precision:5.1f}  old R@10 {got.old_recall:5.1f} "
            f"({got.old_recall - before.old_recall:+.1f}) P@1 {got.old_precision:5.1f} "
            f"({got.old_precision - before.old_precision:+.1f})  H {got.harmonic:5.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=list(SOURCES), metavar="DATASET")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--runs", type=Path, default=BUILD / "class_addition")
    parser.add_argument("--ridge", type=float, action="append", default=[])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    unknown = set(arguments.datasets) - set(SOURCES)
    if unknown:
        parser.error(f"no such dataset: {', '.join(sorted(unknown))}; there are {', '.join(SOURCES)}")
    ways = (SERVED, PLAIN, CENTROID, *(f"ridge {ridge:g}" for ridge in arguments.ridge))
    rows: list[Row] = []
    for name in arguments.datasets:
        rows += measure(prepare(name, arguments.runs, arguments.split, arguments.settings), ways)
        print(table([row for row in rows if row.dataset == name]), flush=True)
    kept = [{**asdict(row), "harmonic": row.figures.harmonic} for row in rows]
    write_json(arguments.out, {"machine": describe(), "settings": arguments.settings, "rows": kept})
    draw(json.loads(arguments.out.read_text())["rows"], arguments.picture)


if __name__ == "__main__":
    main()
