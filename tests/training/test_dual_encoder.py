"""The dual encoder: label vectors against the formula in float64, towers shared or apart, and state that comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests_support import TINY, write_corpus
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.dual_encoder import DualEncoder

CENTROID = "label.centroid=true"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_corpus(tmp_path_factory.mktemp("dual") / "corpus", train=60)
    return load_dataset(folder, load_config(None, TINY))


def model(dataset: Dataset, *settings: str, seed: int = 0) -> DualEncoder:
    made = DualEncoder(load_config(None, [*TINY, f"training.seed={seed}", *settings]), dataset)
    generator = torch.Generator().manual_seed(seed)
    made.free.normal_(generator=generator)
    if made.centroids is not None:
        rows = np.arange(len(dataset.queries))
        made.centroids.update(rows, torch.randn(len(rows), 32, generator=generator))
    return made


@pytest.mark.parametrize("free", ["true", "false"])
@pytest.mark.parametrize("centroid", ["true", "false"])
def test_label_vectors_are_text_and_what_is_trusted_of_free_vector_and_centroid(
    dataset: Dataset, free: str, centroid: str
) -> None:
    made = model(dataset, f"label.free={free}", f"label.centroid={centroid}")
    texts = made.labels.encode(dataset.labels)
    n = dataset.counts[:, None].astype(np.float64)
    wanted = texts.numpy().astype(np.float64)
    if free == "true":
        wanted = wanted + n / (n + 0.5) * made.free.double().numpy()
    if made.centroids is not None:
        sums = dataset.relevance.toarray().T.astype(np.float64) @ made.centroids.vectors.double().numpy()
        wanted = wanted + n / (n + 1) * sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    assert np.abs(made.label_sums(texts).numpy() - wanted).max() < 1e-4
    units = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.abs(made.label_vectors(texts).numpy() - units).max() < 1e-5
    unseen = dataset.counts == 0
    assert unseen.any()
    assert np.abs(made.label_vectors(texts).numpy() - texts.numpy())[unseen].max() < 1e-5


@pytest.mark.parametrize("shared", ["true", "false"])
def test_one_call_for_both_sides_is_each_side_s_own(dataset: Dataset, shared: str) -> None:
    made = model(dataset, f"tower.shared={shared}", "training.feature_dropout=0")
    queries, labels = dataset.queries.take(np.arange(5)), dataset.labels.take(np.array([0, 39]))
    one, other = made.batch(queries, labels, np.random.default_rng(0))
    assert torch.allclose(one, made.queries.encode(queries), atol=1e-6)
    assert torch.allclose(other, made.labels.encode(labels), atol=1e-6)
    assert list(made.towers) == (["tower"] if shared == "true" else ["query", "label"])
    same = torch.allclose(made.queries.encode(labels), made.labels.encode(labels))
    assert same == (shared == "true")


@pytest.mark.parametrize("settings", [(), (CENTROID,), ("tower.shared=false", CENTROID)])
def test_what_tensors_gives_load_takes(dataset: Dataset, settings: tuple[str, ...]) -> None:
    one, other = model(dataset, *settings), model(dataset, *settings, seed=5)
    one.update_free(torch.tensor([1, 3]), torch.ones(2, 32), 1.0)
    other.load({name: value.clone() for name, value in one.tensors().items()})
    assert set(one.tensors()) == set(other.tensors())
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name
    texts = one.labels.encode(dataset.labels)
    assert torch.equal(one.label_vectors(texts), other.label_vectors(other.labels.encode(dataset.labels)))


def test_a_step_of_the_free_vectors_is_adagrad(dataset: Dataset) -> None:
    made = model(dataset)
    before, gradient = made.free.clone(), torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    made.update_free(torch.tensor([1, 3]), gradient.clone(), 0.5)
    change = (made.free - before).double().numpy()
    for row, part in zip((1, 3), gradient.double().numpy(), strict=True):
        assert np.abs(change[row] + 0.1 * 0.5 * part / np.sqrt((part**2).mean())).max() < 1e-5
    assert np.count_nonzero(np.abs(change).sum(axis=1)) == 2
