"""Several seeds as one model, leading dimensions, towers apart: what is exported against torch and float64 NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.bundle import read_manifest
from index.bundles import current_bundle
from index.collection import Collection
from index.encoder import Encoder
from index.errors import BundleError, InputError
from index.features import FeatureSpec, Featurizer
from tests_support import TINY, write_corpus
from training.checkpoint import load_best
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.dual_encoder import DualEncoder
from training.export import export_run
from training.members import Members, member_runs, touched_rows
from training.runs import RunOptions, train_runs

ODD = (
    "",
    " ",
    "a",
    "A" * 5000,
    "日本語 текст עברית",
    "😀😀",
    "\x00",
    "1 2 3 " * 700,
    "ﬁ Ⅷ ＡＢＣ",
    "apple pie",
    "e\u0301",
)
MODELS = {
    "plain": (1, ()),
    "two": (2, ("label.centroid=true",)),
    "two_without_hidden": (2, ("tower.hidden=0",)),
    "apart": (1, ("tower.shared=false", "label.centroid=true")),
    "three_apart_without_hidden": (3, ("tower.shared=false", "tower.hidden=0", "label.free=false")),
    "nested": (2, ("loss.prefixes=[8, 16]",)),
    "separate": (2, ("features.separate=true", "features.probes=2", "tower.row=8")),
    "separate_apart": (1, ("features.separate=true", "tower.row=8", "tower.shared=false", "tower.hidden=0")),
}
Trained = tuple[Path, Dataset]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("members") / "corpus", train=80, test=5)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Runs by name, each trained once."""
    done: dict[str, Trained] = {}

    def train(name: str) -> Trained:
        if name not in done:
            seeds, settings = MODELS[name]
            config = load_config(None, [*TINY, "training.epochs=2", "training.warmup_steps=0", *settings])
            dataset = load_dataset(corpus, config)
            run = tmp_path_factory.mktemp("members") / name
            train_runs(run, corpus, dataset, config, RunOptions(seeds=seeds))
            done[name] = run, dataset
        return done[name]

    return train


def served(run: Path, corpus: Path) -> Dataset:
    """As a bundle reads it: without values that training never met."""
    runs = member_runs(run)
    return load_dataset(corpus, load_config(runs[0] / "config.toml"), known=touched_rows(runs))


def models_of(run: Path, dataset: Dataset) -> list[DualEncoder]:
    models = []
    for member in member_runs(run):
        model = DualEncoder(load_config(member / "config.toml"), dataset)
        model.load(load_best(member)[0])
        models.append(model)
    return models


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, where=length > 0, out=np.zeros_like(vectors)))


def label_sums(model: DualEncoder, dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Text vectors, and label vectors before unit length, by the formula."""
    texts = model.labels.encode(dataset.labels).double().numpy()
    n = dataset.counts[:, None].astype(np.float64)
    sums = texts.copy()
    if model.config.label.free:
        sums += n / (n + 0.5) * model.free.double().numpy()
    if model.centroids is not None:
        last = model.centroids.vectors.double().numpy()
        sums += n / (n + 1) * unit(dataset.relevance.toarray().T.astype(np.float64) @ last)
    return texts, sums


@pytest.mark.parametrize("dim", [None, 16, 1])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_bundle_is_the_members_side_by_side(
    name: str, dim: int | None, trained: Callable[[str], Trained], corpus: Path, tmp_path: Path
) -> None:
    run, dataset = trained(name)
    models, width, dataset = models_of(run, dataset), dim or 32, served(run, corpus)
    share = len(models) ** -0.5
    export_run(run, tmp_path / "collection", dim=dim, report=lambda line: None)
    with Collection(tmp_path / "collection") as opened:
        bundle = opened.snapshot.bundle
        assert bundle.manifest.dim == width * len(models)
        for side, encoder in (("queries", bundle.queries), ("labels", bundle.label_texts)):
            towers = [getattr(model, side) for model in models]
            bags = encoder.featurizer(ODD)  # without what training never met
            parts = [unit(tower.encode(bags).double().numpy()[:, :width]) for tower in towers]
            found = encoder.texts(ODD).astype(np.float64)
            assert np.abs(found - share * np.concatenate(parts, axis=1)).max() < 1e-5
            # An inner product is the mean of the members' cosines.
            assert np.abs(found @ found.T - np.mean([part @ part.T for part in parts], axis=0)).max() < 1e-5
        wanted = []
        for model in models:
            texts, sums = label_sums(model, dataset)
            wanted.append(sums[:, :width] / np.linalg.norm(texts[:, :width], axis=1, keepdims=True))
        together = share * np.concatenate(wanted, axis=1)
        assert np.abs(bundle.sums - together).max() < 1e-4 * max(1.0, np.abs(together).max())
        stored = np.asarray(bundle.index.reconstruct_n(0, 40), dtype=np.float64)
        assert np.abs(stored - unit(together)).max() < 1e-5
        predicted = opened.snapshot.predict(["a guide to apple pie"], 5)
        assert predicted.rows.shape == (1, 5)


def test_one_seed_of_several_is_exported_alone_as_it_was_trained(
    trained: Callable[[str], Trained], corpus: Path, tmp_path: Path
) -> None:
    run, dataset = trained("two")
    export_run(run / "seed-1", tmp_path / "collection", report=lambda line: None)
    sums = label_sums(models_of(run, dataset)[1], served(run / "seed-1", corpus))[1]
    with Collection(tmp_path / "collection") as opened:
        assert np.abs(opened.snapshot.bundle.sums - sums).max() < 1e-4


def test_more_dimensions_than_there_are_are_refused(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    run, _ = trained("nested")
    with pytest.raises(InputError, match="--dim 33: the run's vectors have 32 dimensions; give 1 to 32"):
        export_run(run, tmp_path / "collection", dim=33, report=lambda line: None)
    assert not (tmp_path / "collection").exists()


def test_models_are_named_by_what_they_say(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    run, dataset = trained("two")

    def name(of: Path, dim: int | None = None) -> str:
        return Members.load(of, dataset, dim, lambda line: None).model_id

    assert name(run) == name(run)
    assert len({name(run), name(run, 16), name(run / "seed-0"), name(run / "seed-1")}) == 4
    export_run(run, tmp_path / "collection", report=lambda line: None)
    assert read_manifest(current_bundle(tmp_path / "collection")).model == name(run)


def test_members_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert member_runs(tmp_path) == [tmp_path]
    for name in ("seed-10", "seed-2", "seed-0", "seed-old", "other"):
        (tmp_path / name).mkdir()
    assert [path.name for path in member_runs(tmp_path)] == ["seed-0", "seed-2", "seed-10"]
    (tmp_path / "config.toml").write_text("")
    assert member_runs(tmp_path) == [tmp_path]


def test_a_member_without_a_checkpoint_is_named(
    trained: Callable[[str], Trained], corpus: Path, tmp_path: Path
) -> None:
    _, dataset = trained("plain")
    config = load_config(None, [*TINY, "training.epochs=1"])
    train_runs(tmp_path / "run", corpus, dataset, config, RunOptions(seeds=2))
    for file in (tmp_path / "run" / "seed-1").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(BundleError, match=r"seed-1/checkpoint\.safetensors: there is no checkpoint yet"):
        export_run(tmp_path / "run", tmp_path / "collection", report=lambda line: None)


@pytest.mark.parametrize("name", ["two", "apart", "separate"])
def test_rows_are_known_that_training_touched_in_every_member(name: str, trained: Callable[[str], Trained]) -> None:
    run, dataset = trained(name)
    known = touched_rows(member_runs(run))
    seen = dict.fromkeys(("query", "label"), np.ones(4096, dtype=np.bool_))
    for member in member_runs(run):
        tensors = load_best(member)[0]
        for side in ("query", "label"):
            tower = side if name == "apart" else "tower"
            seen[side] = seen[side] & (tensors[f"{tower}.adagrad.table"].numpy() > 0)
    for side in ("query", "label"):
        assert np.array_equal(known[side], seen[side])
        assert 0 < known[side].sum() < 4096
    assert np.array_equal(known["query"], known["label"]) == (name != "apart")
    # Whatever a training query says has been touched, but for the share of features that was left out each time.
    assert known["query"][dataset.queries.take(np.arange(60)).rows].mean() > 0.95  # type: ignore[attr-defined]


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-3), ("int8", 2e-2)])
def test_tables_of_fewer_bits_are_smaller_and_near(
    precision: str, most: float, trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    run, dataset = trained("separate")
    models = Members.load(run, dataset, None, lambda line: None)
    assert isinstance(models.spec, FeatureSpec)
    for name in ("fp32", precision):
        (tmp_path / name).mkdir()
        models.write_towers(tmp_path / name, name)
    exact, near = (Encoder(tmp_path / name / "query.onnx", Featurizer(models.spec)) for name in ("fp32", precision))
    difference = np.abs(exact.texts(ODD) - near.texts(ODD)).max()
    assert 0 < difference < most
    sizes = [(tmp_path / name / "table.bin").stat().st_size for name in ("fp32", precision)]
    assert sizes[1] <= sizes[0] / 2 + 4096 * 4 * (precision == "int8") + 4096
    with pytest.raises(InputError, match="precision: must be one of"):
        models.write_towers(tmp_path, "fp64")
