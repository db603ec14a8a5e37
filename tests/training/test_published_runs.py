"""A query tower trained against a collection: labels stay as they are to the last bit, in the run and its bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.bundle import Bundle
from index.bundles import current_bundle
from index.errors import InputError
from index.label_vector import unit
from index.ranking import CANDIDATES
from index.snapshot import Snapshot
from tests_support import SUBJECTS
from trainer_support import stop_after
from training.checkpoint import load_best, load_checkpoint
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.export import export_run
from training.inspection import inspect_run
from training.members import Members
from training.published import Published
from training.published_config import published_config
from training.run import start_run
from training.runs import RunOptions, train_runs
from training.trainer import InterruptedRunError, Trainer
from training.warm_start import Earlier

SETTINGS = ("training.epochs=2", "training.batch=32", "training.threads=1", "training.dev_share=0.2",
            "training.warmup_steps=0", "negatives.sampled=20", "tower.hidden=16")  # fmt: skip
WAYS = {
    "plain": ("compatible.weight=0",),
    "near the old queries": ("compatible.weight=0.3",),
    "all labels": ("negatives.kind=all", "label.text_queries=false", "compatible.weight=0"),
    "mined, in chunks": ("negatives.kind=mined", "negatives.mined=2", "negatives.refresh=3", "training.chunk=9"),
    "cached, nested, mixed": ("negatives.kind=cached", "negatives.hardest=5", "loss.prefixes=[8]", "loss.mixup=0.5",
                              "compatible.weight=0.5"),
}  # fmt: skip


@pytest.fixture(scope="module")
def load(tiny_corpus: Path, published: Published) -> Callable[..., tuple[Dataset, Trainer]]:
    def loaded(*settings: str) -> tuple[Dataset, Trainer]:
        config = published_config(published, None, [*SETTINGS, *settings])
        dataset = load_dataset(tiny_corpus, config, published.lexicon)
        return dataset, Trainer(dataset, config, published=published)

    return loaded


@pytest.fixture(scope="module")
def run(tiny_corpus: Path, published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    config = published_config(published, None, [*SETTINGS, "training.epochs=8", "compatible.weight=0.5"])
    folder = tmp_path_factory.mktemp("against") / "run"
    dataset = load_dataset(tiny_corpus, config, published.lexicon)
    train_runs(folder, tiny_corpus, dataset, config, RunOptions(against=published))
    return folder


@pytest.fixture(scope="module")
def new(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    collection = tmp_path_factory.mktemp("against") / "collection"
    export_run(run, collection, report=lambda line: None)
    return Bundle.open(current_bundle(collection))


@pytest.mark.parametrize("way", list(WAYS))
def test_only_the_query_tower_moves(way: str, load: Callable[..., tuple[Dataset, Trainer]], old: Bundle) -> None:
    _, trainer = load(*WAYS[way])
    wanted = unit(np.array(old.sums, dtype=np.float32))
    before = {name: value.clone() for name, value in trainer.model.tensors().items()}
    assert {name.partition(".")[0] for name in before} == {"query", "free", "adagrad"}
    for batch in trainer.batches.epoch(0, trainer.batches.order(0, trainer._clusters())):
        assert np.isfinite(trainer.step(batch))
    assert np.abs(trainer.label_vectors().numpy() - wanted).max() < 1e-6
    after = trainer.model.tensors()
    assert not any(after[name].any() for name in ("free", "adagrad.free"))
    assert not torch.equal(before["query.weight.table"], after["query.weight.table"])


@pytest.mark.parametrize("way", ["plain", "near the old queries", "cached, nested, mixed"])
def test_it_goes_on_after_the_collection_has_gone(
    way: str, load: Callable[..., tuple[Dataset, Trainer]], tiny_corpus: Path, published: Published, tmp_path: Path
) -> None:
    dataset, whole = load(*WAYS[way])
    whole.train(tmp_path)
    moved = Path(shutil.copytree(published.folder, tmp_path / "moved"))
    config, options = whole.config, RunOptions(against=Published.open(moved))
    start_run(tmp_path / "run", tiny_corpus, dataset, config, published=options.against)
    broken = Trainer(dataset, config, published=options.against)
    stop_after(broken, 4)
    with pytest.raises(InterruptedRunError):
        broken.train(tmp_path / "run")
    shutil.rmtree(moved)
    saved = load_config(tmp_path / "run" / "config.toml")
    again = load_dataset(tiny_corpus, saved)
    train_runs(tmp_path / "run", tiny_corpus, again, saved, RunOptions(resume=True))
    kept, found = load_checkpoint(tmp_path)[0], load_checkpoint(tmp_path / "run")[0]
    assert set(kept) == set(found)
    for name, value in kept.items():
        assert torch.equal(value, found[name]), name


def test_the_bundle_has_the_published_labels_bit_for_bit(run: Path, new: Bundle, old: Bundle) -> None:
    assert [new.labels.ids[row] for row in range(40)] == [old.labels.ids[row] for row in range(40)]
    assert new.sums.tobytes() == old.sums.tobytes()
    assert new.index.reconstruct_n(0, 40).tobytes() == old.index.reconstruct_n(0, 40).tobytes()
    for name in ("label.onnx", "table.bin", "known.label.npy"):
        assert (new.folder / name).read_bytes() == (old.folder / name).read_bytes()
    assert new.manifest.features == old.manifest.features
    assert new.manifest.model != old.manifest.model
    texts = [*SUBJECTS, "", "日本語", "soil " * 2000]
    assert new.label_texts.texts(texts).tobytes() == old.label_texts.texts(texts).tobytes()
    assert np.abs(new.queries.texts(texts) - old.queries.texts(texts)).max() > 1e-3


def test_rows_of_queries_are_known_by_the_new_training(run: Path, new: Bundle) -> None:
    bits = np.unpackbits(np.load(new.folder / "known.query.npy"), count=4096).view(np.bool_)
    tensors = load_best(run)[0]
    assert np.array_equal(bits, tensors["query.adagrad.table"].numpy() > 0)
    assert not np.array_equal(bits, np.unpackbits(np.load(new.folder / "known.label.npy"), count=4096).view(np.bool_))


def right(queries: NDArray[np.float32], bundle: Bundle, dataset: Dataset) -> float:
    """P@1 on dev, by hand, of these query vectors on a bundle's label vectors."""
    vectors = np.array(bundle.sums, dtype=np.float64)
    best = (queries @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T).argmax(axis=1)
    truth = dataset.dev.relevance.toarray()
    return float(truth[np.arange(len(best)), best].mean())


def test_new_queries_meet_the_old_index(run: Path, new: Bundle, old: Bundle, tiny_corpus: Path) -> None:
    dataset = load_dataset(tiny_corpus, load_config(run / "config.toml"))
    queries = new.queries.items(dataset.dev.items)  # type: ignore[arg-type]
    met = replace(Snapshot.of(old), bundle=replace(old, queries=new.queries))
    found = met.index.search(queries, CANDIDATES)
    assert right(queries, old, dataset) == right(queries, new, dataset) > 0.9
    exact = np.take_along_axis(queries @ unit(np.array(old.sums)).T, found.rows[:, :1], axis=1)
    assert np.abs(found.scores[:, :1] - exact).max() < 1e-5
    served = met.rank(queries, 1).rows[:, 0]
    truth = dataset.dev.relevance.toarray()
    assert truth[np.arange(len(served)), served].mean() > 0.9
    assert met.predict(["a guide to apple pie"], 1).rows[0, 0] == new.labels.ids.find("s0", new.labels.order)


def test_a_third_version_has_the_labels_of_the_first(
    tiny_corpus: Path, new: Bundle, old: Bundle, run: Path, tmp_path: Path
) -> None:
    second = Published.open(new.folder)
    config = published_config(second, None, SETTINGS, init=run)
    dataset = load_dataset(tiny_corpus, config)
    train_runs(tmp_path / "run", tiny_corpus, dataset, config, RunOptions(init=run, against=second))
    export_run(tmp_path / "run", tmp_path / "collection", report=lambda line: None)
    third = Bundle.open(current_bundle(tmp_path / "collection"))
    assert third.sums.tobytes() == old.sums.tobytes()
    assert (third.folder / "label.onnx").read_bytes() == (old.folder / "label.onnx").read_bytes()


@pytest.mark.parametrize("source", ["shared", "against"])
def test_it_begins_with_the_query_tower_of_a_run(
    source: str, run: Path, tiny_run: Path, tiny_corpus: Path, published: Published
) -> None:
    begin, prefix = (tiny_run, "tower.") if source == "shared" else (run, "query.")
    config = published_config(published, None, ["training.epochs=1"], init=begin)
    trainer = Trainer(load_dataset(tiny_corpus, config), config, published=published)
    trainer.begin_from(Earlier.open(begin, config))
    tensors, found = load_best(begin)[0], trainer.model.tensors()
    assert torch.equal(found["query.weight.table"], tensors[f"{prefix}weight.table"])
    assert not found["free"].any()


def test_what_cannot_be_is_refused(run: Path, tiny_corpus: Path, published: Published, tmp_path: Path) -> None:
    config = load_config(run / "config.toml")
    dataset = load_dataset(tiny_corpus, config)
    with pytest.raises(InputError, match="--dim 16: the published label vectors have 32 dimensions; leave it out"):
        export_run(run, tmp_path / "collection", dim=16, report=lambda line: None)
    with pytest.raises(InputError, match="--seeds 2: one query tower meets the published label vectors"):
        train_runs(tmp_path / "run", tiny_corpus, dataset, config, RunOptions(seeds=2, against=published))
    with pytest.raises(InputError, match="--against: starts a new run"):
        train_runs(run, tiny_corpus, dataset, config, RunOptions(resume=True, against=published))
    with pytest.raises(InputError, match=r"compatible\.bundle: is '0001-"):
        train_runs(tmp_path / "run", tiny_corpus, dataset, config, RunOptions())
    assert not (tmp_path / "run").exists()


def test_models_are_named_by_their_label_side_too(run: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    dataset = load_dataset(tiny_corpus, load_config(run / "config.toml"))
    named = {Members.load(run, dataset, None, lambda line: None).model_id for _ in range(2)}
    other = replace(dataset, label_ids=[*dataset.label_ids[:-1], "another"])
    named.add(Members.load(run, other, None, lambda line: None).model_id)
    assert len(named) == 2


def test_a_run_against_a_bundle_is_inspected(run: Path) -> None:
    found = inspect_run(run)
    assert [table.tower for table in found.members[0].tables] == ["query"]
    assert found.labels == 40
