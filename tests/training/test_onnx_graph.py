"""The graphs of unified towers, alone and side by side, against torch and float64 NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.encoder import Encoder
from index.features import FeatureSpec, Featurizer
from tests_support import TINY
from training.config import load_config
from training.onnx_graph import write_towers
from training.onnx_table import PRECISIONS
from training.unified_tower import UnifiedTower
from unified_support import Array, by_numpy, random_bags, randomise

HISTORIES = 'features.fields={a={kind="history", top=3}, b={kind="history", top=50}}'
SEPARATE = ("features.separate=true", "tower.row=8", "features.probes=2")
FORMS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "one bag": (1, 0, ()),
    "one bag, histories": (1, 2, (HISTORIES,)),
    "separate": (6, 0, SEPARATE),
    "separate, histories": (6, 2, (*SEPARATE, HISTORIES)),
    "one slot": (1, 0, ("features.separate=true", "features.pairs=false", "features.ngrams=[]")),
}
# The most that a unit vector may be off, of any of its numbers.
MOST = {"fp32": 1e-5, "fp16": 1e-3, "int8": 2e-2}


def towers(form: str, count: int, hidden: int = 32) -> list[UnifiedTower]:
    config = load_config(None, [*TINY, *FORMS[form][2], f"tower.hidden={hidden}"])
    return [randomise(UnifiedTower(config, seed), seed) for seed in range(count)]


def exported(folder: Path, made: list[UnifiedTower], width: int = 32, precision: str = "fp32") -> Encoder:
    write_towers(folder, ("query", "label"), [tower.parts() for tower in made], width, precision=precision)
    return Encoder(folder / "query.onnx", Featurizer(made[0].spec))


def unit(vectors: NDArray[np.float64]) -> Array:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, where=length > 0, out=np.zeros_like(vectors)))


@pytest.mark.parametrize("hidden", [0, 9])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("width", [1, 5, 32])
@pytest.mark.parametrize("form", list(FORMS))
def test_inner_products_are_the_mean_of_the_towers_cosines(
    form: str, count: int, hidden: int, width: int, tmp_path: Path
) -> None:
    made = towers(form, count, hidden)
    encoder = exported(tmp_path, made, width)
    bags = random_bags(4096, *FORMS[form][:2])
    found = encoder.items(bags).astype(np.float64)
    assert found.shape == (8, count * width)
    parts = [unit(by_numpy(tower, bags)[:, :width]) for tower in made]
    assert np.abs(found - np.concatenate(parts, axis=1) / count**0.5).max() < 1e-5
    assert np.abs(found @ found.T - np.mean([part @ part.T for part in parts], axis=0)).max() < 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("form", list(FORMS))
def test_alone_or_together_at_any_precision_it_is_torch_s(
    form: str, count: int, precision: str, tmp_path: Path
) -> None:
    made = towers(form, count)
    encoder = exported(tmp_path, made, precision=precision)
    bags = random_bags(4096, *FORMS[form][:2])
    wanted = torch.cat([tower.encode(bags) for tower in made], dim=1).numpy() / count**0.5
    together = encoder.items(bags)
    assert np.abs(together - wanted).max() < MOST[precision]
    alone = np.concatenate([encoder.items(bags.take(np.array([text]))) for text in range(len(bags))])
    assert np.abs(alone - together).max() < 1e-5
    assert encoder.items(bags.take(np.zeros(0, dtype=np.int64))).shape == (0, encoder.dim)


def test_a_graph_of_other_inputs_than_the_features_is_refused(tmp_path: Path) -> None:
    from index.errors import BundleError

    exported(tmp_path, towers("one bag, histories", 1))
    with pytest.raises(BundleError, match=r"takes history0.mask, history0.rows, .*, not rows and weights"):
        Encoder(tmp_path / "query.onnx", Featurizer(FeatureSpec()))
