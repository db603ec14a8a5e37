"""Export: the bundle says what torch says, in numbers, and appears whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index import encode_shards
from index.bundle import read_manifest
from index.bundles import current_bundle
from index.changes import PutLabel
from index.collection import Collection
from index.dev_queries import bundled_dev
from index.errors import BundleError, InputError, LabelspaceError
from index.features import FeatureSpec, Featurizer
from index.label_vector import FREE_PRIOR
from tests_support import TINY, write_corpus
from training import export
from training.checkpoint import load_best, load_checkpoint, save_checkpoint
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.dual_encoder import DualEncoder
from training.export import ExportJob, _Exporter, export_run, run_state
from training.members import Members
from training.run import start_run
from training.runs import RunOptions, train_runs
from training.trainer import Trainer

ODD = (
    "", " ", "a", "A" * 5000, "日本語 текст עברית", "😀😀", "\x00", "1 2 3 " * 700, "c++ c# x86_64", "ﬁ Ⅷ ＡＢＣ",
    "line\nbreak\ttab", "é", "e\u0301",
)  # fmt: skip


def silent(line: str) -> None:
    pass


def torch_model(run: Path, dataset: Dataset) -> DualEncoder:
    model = DualEncoder(load_config(run / "config.toml"), dataset)
    model.load(load_best(run)[0])
    return model


def trained(corpus: Path, run: Path, *settings: str) -> tuple[Trainer, Dataset]:
    config = load_config(None, [*TINY, *settings])
    dataset = load_dataset(corpus, config)
    start_run(run, corpus, dataset, config)
    trainer = Trainer(dataset, config)
    trainer.train(run)
    return trainer, dataset


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def without_text(corpus: Path, *ids: str) -> None:
    labels = [json.loads(line) for line in (corpus / "labels.jsonl").read_text().splitlines()]
    lines = [json.dumps({**label, "text": "" if label["id"] in ids else label["text"]}) for label in labels]
    (corpus / "labels.jsonl").write_text("\n".join(lines) + "\n")


def test_both_towers_agree_with_torch_on_odd_texts(tiny_run: Path, tiny_corpus: Path, tiny_collection: Path) -> None:
    model = torch_model(tiny_run, load_dataset(tiny_corpus, load_config(tiny_run / "config.toml")))
    with Collection(tiny_collection) as opened:
        bundle = opened.snapshot.bundle
        assert isinstance(bundle.manifest.features, FeatureSpec)
        wanted = model.queries.encode(Featurizer(bundle.manifest.features)(ODD)).numpy()
        for encoder in (bundle.queries, bundle.label_texts):
            assert np.abs(encoder.texts(ODD) - wanted).max() < 1e-5
            alone = np.concatenate([encoder.texts([text]) for text in ODD])
            assert np.abs(alone - wanted).max() < 1e-5


def test_label_vectors_are_the_formula_in_float64(tiny_run: Path, tiny_corpus: Path, tiny_collection: Path) -> None:
    dataset = load_dataset(tiny_corpus, load_config(tiny_run / "config.toml"))
    model = torch_model(tiny_run, dataset)
    texts = model.labels.encode(dataset.labels).numpy().astype(np.float64)
    counts = dataset.counts[:, None].astype(np.float64)
    sums = texts + counts / (counts + FREE_PRIOR) * model.free.numpy()
    with Collection(tiny_collection) as opened:
        bundle = opened.snapshot.bundle
        assert np.abs(bundle.sums - sums).max() < 1e-5
        stored = bundle.index.reconstruct_n(0, len(sums))
        assert np.abs(stored - unit(sums)).max() < 1e-5


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("centroid", ["false", "true"])
def test_labels_without_text_are_exported_as_they_were_trained(hidden: int, centroid: str, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=200)
    without_text(corpus, "s0", "s39")  # s0 is known by its training rows alone, s39 (in no training row) by nothing
    settings = (f"tower.hidden={hidden}", f"label.centroid={centroid}", "training.epochs=6", "training.warmup_steps=0")
    trainer, _ = trained(corpus, tmp_path / "run", *settings)
    best = torch_model(tmp_path / "run", trainer.dataset)
    wanted = best.label_vectors(best.labels.encode(trainer.dataset.labels)).numpy()
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    with Collection(tmp_path / "collection") as opened:
        sums = np.asarray(opened.snapshot.bundle.sums)
        assert np.abs(unit(sums.astype(np.float64))[:39] - wanted[:39]).max() < 1e-5
        assert np.linalg.norm(sums, axis=1).max() < 100
        assert not sums[39].any()
        predicted = opened.snapshot.predict(["a guide to apple pie", "ocean tide"], 40).rows
        assert predicted[0][0] == 0
        assert 39 not in predicted


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_label_put_while_serving_has_the_formula_of_one_that_was_trained(seeds: int, tmp_path: Path) -> None:
    corpus, config = (
        write_corpus(tmp_path / "corpus", train=100),
        load_config(None, [*TINY, "training.epochs=3", "training.warmup_steps=0", "label.centroid=true"]),
    )
    dataset = load_dataset(corpus, config)
    train_runs(tmp_path / "run", corpus, dataset, config, RunOptions(seeds=seeds))
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    runs = [tmp_path / "run"] if seeds == 1 else [tmp_path / "run" / f"seed-{place}" for place in range(seeds)]
    models = [torch_model(run, dataset) for run in runs]

    def encoded(*texts: str) -> NDArray[np.float64]:
        parts = [model.queries.encode(model.queries.prepare(texts)).double().numpy() for model in models]
        return np.asarray(np.concatenate(parts, axis=1) / seeds**0.5)

    trained_part = []
    for model in models:
        n = float(dataset.counts[3])
        queries = dataset.relevance[:, [3]].toarray()[:, 0] > 0
        assert model.centroids is not None
        centroid = unit(model.centroids.vectors.double().numpy()[queries].sum(axis=0))
        trained_part.append(n / (n + 0.5) * model.free[3].double().numpy() + n / (n + 1) * centroid)
    of_3 = np.concatenate(trained_part) / seeds**0.5
    examples = ("a zebra crossing", "zebra today")
    with Collection(tmp_path / "collection") as opened:
        assert np.abs(opened.snapshot.bundle.sums[3] - (encoded(dataset.label_texts[3])[0] + of_3)).max() < 1e-4
        opened.write([PutLabel("new", "zebra", examples), PutLabel("s3", "turf"), PutLabel("bare", "coral")])
        records = dataset.queries.take(np.arange(dataset.examples))
        queries = np.concatenate([model.queries.encode(records).double().numpy() for model in models], axis=1)
        second = queries.T @ queries
        dim, ridge = len(second), opened.snapshot.bundle.manifest.addition.ridge
        assert ridge > 0
        whitened = np.linalg.inv(second + ridge * np.trace(second) / dim * np.eye(dim))
        # Each alone at the top of a query that is the vector itself.
        wanted = {
            "new": unit(encoded("zebra")[0] @ whitened) + 2 / 3 * unit(encoded(*examples).sum(axis=0) @ whitened),
            "s3": encoded("turf")[0] + of_3,
            "bare": encoded("coral")[0] @ whitened,
        }
        for label, vector in wanted.items():
            row = opened.snapshot.labels.find(label)
            found = opened.snapshot.index.search(unit(vector)[None].astype(np.float32), 1)
            assert found.rows[0, 0] == row
            assert found.scores[0, 0] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("mode", ["on", "off", "head"])
def test_the_memory_holds_the_labels_that_its_mode_says(mode: str, tmp_path: Path) -> None:
    corpus, said = write_corpus(tmp_path / "corpus", train=120), list[str]()
    _, dataset = trained(corpus, tmp_path / "run", f"memory.mode={mode}", "memory.head_rows=4", "training.epochs=1")
    head = dataset.counts >= 4
    assert 0 < head.sum() < 39
    export_run(tmp_path / "run", tmp_path / "collection", report=said.append)
    with Collection(tmp_path / "collection") as opened:
        bundle = opened.snapshot.bundle
        for row in range(len(dataset.queries)):
            carried = set(dataset.relevance[row].indices.tolist())
            wanted = {label for label in carried if head[label]} if mode == "head" else carried
            assert set(bundle.example_labels[row].tolist()) == wanted
        if mode == "off":
            assert bundle.memory is None
            assert bundle.manifest.ranking.memory_weight == 0
            assert "example memory: off" in said
            assert not (current_bundle(tmp_path / "collection") / "memory.faiss").exists()


def test_what_the_memory_leaves_out_stays_in_the_dataset(tiny_run: Path, tiny_corpus: Path) -> None:
    config = load_config(tiny_run / "config.toml", ["memory.mode=head", "memory.head_rows=15"])
    dataset = load_dataset(tiny_corpus, config)
    before = dataset.relevance.copy()
    models = replace(Members.load(tiny_run, dataset, None, silent), config=config)
    carried = _Exporter(models, dataset, 0.99, "fp32", silent)._carried()
    assert len(carried.values) < before.nnz
    assert (dataset.relevance != before).nnz == 0
    assert dataset.relevance.nnz == before.nnz


def test_label_texts_as_queries_are_no_examples(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=60)
    without_text(corpus, "s5")
    _, dataset = trained(corpus, tmp_path / "run", "label.text_queries=true", "training.epochs=1")
    assert len(dataset.queries) == dataset.examples + 39
    assert dataset.counts.sum() == dataset.relevance[: dataset.examples].nnz
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    with Collection(tmp_path / "collection") as opened:
        assert len(opened.snapshot.bundle.example_labels) == dataset.examples


def test_the_memory_holds_every_training_query_with_its_labels(
    tiny_run: Path, tiny_corpus: Path, tiny_collection: Path
) -> None:
    dataset = load_dataset(tiny_corpus, load_config(tiny_run / "config.toml"))
    with Collection(tiny_collection) as opened:
        bundle = opened.snapshot.bundle
        assert len(bundle.example_labels) == len(dataset.queries)
        for row in (0, 7, len(dataset.queries) - 1):
            assert bundle.example_labels[row].tolist() == dataset.relevance[row].indices.tolist()
        if bundle.memory is not None:
            assert bundle.memory.ntotal == len(dataset.queries)


def test_the_manifest_says_what_is_there(tiny_collection: Path) -> None:
    folder = current_bundle(tiny_collection)
    manifest = read_manifest(folder)
    assert manifest.bundle == folder.name
    assert (manifest.labels, manifest.dim, manifest.change) == (40, 32, 0)
    assert manifest.index.recall == 1.0
    assert {path.name for path in folder.iterdir()} == {*manifest.files, "manifest.json", "manifest.sha256"}
    assert json.loads((folder / "calibration.json").read_text())["scores"]
    assert not list(folder.parent.glob(".*"))


def test_a_second_export_is_a_second_bundle_and_becomes_current(tiny_run: Path, collection: Path) -> None:
    first = current_bundle(collection)
    name = export_run(tiny_run, collection, report=silent)
    assert current_bundle(collection).name == name != first.name
    assert first.is_dir()
    with Collection(collection) as opened:
        assert opened.snapshot.bundle.manifest.model == read_manifest(first).model


@pytest.mark.parametrize("failing", ["np.save", "faiss.write_index"])
def test_a_disk_that_fills_up_leaves_the_collection_as_it_was(
    failing: str, tiny_run: Path, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(path.relative_to(collection) for path in collection.rglob("*"))
    module, name = (np, "save") if failing == "np.save" else (faiss, "write_index")
    monkeypatch.setattr(module, name, full)
    with pytest.raises(LabelspaceError, match=r"could not be written \(No space left on device\); nothing was changed"):
        export_run(tiny_run, collection, report=silent)
    monkeypatch.undo()
    assert sorted(path.relative_to(collection) for path in collection.rglob("*")) == before
    with Collection(collection) as opened:
        assert opened.snapshot.predict(["apple pie"], 1).rows.shape == (1, 1)


def test_a_really_full_disk_leaves_nothing_behind(tiny_run: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with pytest.raises(LabelspaceError, match="nothing was changed"):
            export_run(tiny_run, disk / "collection", report=silent)
        assert not list((disk / "collection" / "bundles").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_unfinished_run_is_exported_with_a_word_about_it(tiny_run: Path, tmp_path: Path) -> None:
    run, said = Path(shutil.copytree(tiny_run, tmp_path / "run")), list[str]()
    tensors, position = load_checkpoint(run)
    (run / "best.safetensors").unlink()
    save_checkpoint(run, tensors, replace(position, epoch=4, curve=position.curve[:4]))
    export_run(run, tmp_path / "collection", report=said.append)
    assert said[0].endswith("epoch 4 of 12, the best by dev of those trained so far")


def test_a_run_of_another_corpus_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", train=60)
    with pytest.raises(InputError, match="another corpus"):
        export_run(tiny_run, tmp_path / "collection", corpus=other, report=silent)
    assert not (tmp_path / "collection").exists()


def test_the_corpus_may_have_moved(tiny_run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_corpus, tmp_path / "moved"))
    assert export_run(tiny_run, tmp_path / "collection", corpus=moved, report=silent)


def test_a_corpus_of_one_query_and_many_labels_is_exported_and_served(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=1, test=1)
    trained(corpus, tmp_path / "run", "training.epochs=1")
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    with Collection(tmp_path / "collection") as opened:
        predictions = opened.snapshot.predict(["apple pie", ""], 100)
        assert predictions.rows.shape == (2, 100)
        assert sorted(predictions.rows[0][:40].tolist()) == list(range(40))


def test_the_bundle_keeps_held_out_records_with_their_labels(
    tiny_run: Path, tiny_corpus: Path, collection: Path
) -> None:
    config = load_config(tiny_run / "config.toml")
    dataset = load_dataset(tiny_corpus, config)
    queries = bundled_dev(current_bundle(collection))
    assert len(queries) == len(dataset.dev.items) == 400 - dataset.examples
    held = {
        tuple(dataset.label_ids[row] for row in dataset.dev.relevance[place].indices)
        for place in range(len(dataset.dev.items))
    }
    assert {query.labels for query in queries} == held
    model = torch_model(tiny_run, dataset)
    said = model.queries.encode(model.queries.prepare([query.text for query in queries])).numpy()
    wanted = model.queries.encode(dataset.dev.items).numpy()
    assert np.abs(np.sort(said, axis=0) - np.sort(wanted, axis=0)).max() < 1e-5


def test_a_bundle_may_be_added_without_becoming_current(tiny_run: Path, collection: Path) -> None:
    first = current_bundle(collection)
    name = export_run(tiny_run, collection, report=silent, promote=False)
    assert current_bundle(collection) == first
    assert read_manifest(first.parent / name).bundle == name


def test_many_examples_are_encoded_in_shards_that_are_kept(
    tiny_run: Path, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = export_run(tiny_run, collection, report=silent, promote=False)
    monkeypatch.setattr(export, "_LARGE", 100)
    monkeypatch.setattr(export, "SHARD_ROWS", 64)
    monkeypatch.setattr("index.encode_shards.SHARD_ROWS", 64)
    work = collection / "work"
    job = ExportJob("key", work, 1)
    wanted = {"first": 5, "second": 0}
    for _, most in wanted.items():
        made = list[int]()
        monkeypatch.setattr("index.encode_shards._encode", counted(made))
        name = export_run(tiny_run, collection, report=silent, promote=False, job=job)
        assert len(made) == most
        vectors = [np.load(collection / "bundles" / one / "vectors.npy") for one in (plain, name)]
        assert np.array_equal(*vectors)
        assert json.loads((collection / "bundles" / name / "reindex.json").read_text()) == {"exported_for": "key"}
    assert not (work / "filling.json").exists()


def counted(made: list[int]) -> Callable[..., None]:
    real = encode_shards._encode

    def encode(*given: Any) -> None:
        made.append(1)
        real(*given)

    return encode


def test_the_state_of_a_run_is_that_of_its_best_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    state = run_state(run)
    assert run_state(run) == state
    best = run / "best.safetensors"
    data = bytearray(best.read_bytes())
    data[-1] ^= 1
    best.unlink()
    best.write_bytes(data)
    assert run_state(run) != state
    for checkpoint in run.glob("*.safetensors"):
        checkpoint.unlink()
    with pytest.raises(BundleError, match="no checkpoint yet"):
        run_state(run)
    with pytest.raises(InputError, match="no run is here"):
        run_state(tmp_path / "nowhere")
