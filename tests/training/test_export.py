"""Export: the bundle says what torch says, in numbers, and appears whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from index.bundle import read_manifest
from index.collection import Collection, current_bundle
from index.errors import InputError, LabelspaceError
from index.features import Featurizer
from index.label_vector import FREE_PRIOR
from tests_support import TINY, write_corpus
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import load_config
from training.dataset import load_dataset
from training.dual_encoder import DualEncoder
from training.export import export_run
from training.trainer import Trainer, load_model, start_run

ODD = (
    "", " ", "a", "A" * 5000, "日本語 текст עברית", "😀😀", "\x00", "1 2 3 " * 700, "c++ c# x86_64", "ﬁ Ⅷ ＡＢＣ",
    "line\nbreak\ttab", "é", "e\u0301",
)  # fmt: skip


def silent(line: str) -> None:
    pass


def torch_model(run: Path, corpus: Path) -> DualEncoder:
    config = load_config(run / "config.toml")
    model = DualEncoder(config, load_dataset(corpus, config).counts)
    load_model(model, load_checkpoint(run)[0])
    return model


def test_both_towers_agree_with_torch_on_odd_texts(tiny_run: Path, tiny_corpus: Path, tiny_collection: Path) -> None:
    model = torch_model(tiny_run, tiny_corpus)
    with Collection(tiny_collection) as opened:
        bundle = opened.snapshot.bundle
        wanted = model.encode(Featurizer(bundle.manifest.features)(ODD)).numpy()
        for encoder in (bundle.queries, bundle.label_texts):
            assert np.abs(encoder.texts(ODD) - wanted).max() < 1e-5
            alone = np.concatenate([encoder.texts([text]) for text in ODD])
            assert np.abs(alone - wanted).max() < 1e-5


def test_label_vectors_are_the_formula_in_float64(tiny_run: Path, tiny_corpus: Path, tiny_collection: Path) -> None:
    model = torch_model(tiny_run, tiny_corpus)
    config = load_config(tiny_run / "config.toml")
    dataset = load_dataset(tiny_corpus, config)
    texts = model.encode(dataset.labels).numpy().astype(np.float64)
    counts = dataset.counts[:, None].astype(np.float64)
    sums = texts + counts / (counts + FREE_PRIOR) * model.free.numpy()
    with Collection(tiny_collection) as opened:
        bundle = opened.snapshot.bundle
        assert np.abs(bundle.sums - sums).max() < 1e-5
        units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        stored = bundle.index.reconstruct_n(0, len(units))
        assert np.abs(stored - units).max() < 1e-5


def test_labels_without_text_are_exported_as_they_were_trained(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    labels = [json.loads(line) for line in (corpus / "labels.jsonl").read_text().splitlines()]
    for label in labels:
        # s0 is known by its training rows alone, s39 (in no training row) by nothing.
        if label["id"] in ("s0", "s39"):
            label["text"] = ""
    (corpus / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    config = load_config(None, TINY)
    dataset = load_dataset(corpus, config)
    start_run(tmp_path / "run", corpus, dataset, config)
    trainer = Trainer(dataset, config)
    trainer.train(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    with Collection(tmp_path / "collection") as opened:
        sums = np.asarray(opened.snapshot.bundle.sums)
        units = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        assert np.abs(units[:39] - trainer.label_vectors().numpy()[:39]).max() < 1e-5
        assert not sums[39].any()
        predicted = opened.snapshot.predict(["a guide to apple pie", "ocean tide"], 40).rows
        assert predicted[0][0] == 0
        assert 39 not in predicted


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
    save_checkpoint(run, tensors, replace(position, epoch=4))
    export_run(run, tmp_path / "collection", report=said.append)
    assert said[0].endswith("stands at epoch 5 of 12; exported as it is")


def test_a_run_of_another_corpus_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", train=60)
    with pytest.raises(InputError, match="another corpus"):
        export_run(tiny_run, tmp_path / "collection", corpus=other, report=silent)
    assert not (tmp_path / "collection").exists()


def test_the_corpus_may_have_moved(tiny_run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_corpus, tmp_path / "moved"))
    assert export_run(tiny_run, tmp_path / "collection", corpus=moved, report=silent)


def test_a_corpus_of_one_query_and_two_labels_is_exported_and_served(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", train=1, test=1)
    lines = (corpus / "labels.jsonl").read_text().splitlines()
    config = load_config(None, [*TINY, "training.epochs=1"])
    dataset = load_dataset(corpus, config)
    start_run(tmp_path / "run", corpus, dataset, config)
    Trainer(dataset, config).train(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "collection", report=silent)
    with Collection(tmp_path / "collection") as opened:
        predictions = opened.snapshot.predict(["apple pie", ""], 100)
        assert predictions.rows.shape == (2, 100)
        assert sorted(predictions.rows[0][:40].tolist()) == list(range(len(lines)))
