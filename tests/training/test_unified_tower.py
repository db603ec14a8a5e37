"""The unified tower: one step against float64 NumPy, several calls of a step as one, and state that comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.bags import Bags, stack_bags
from tests_support import TINY
from training.config import Config, load_config
from training.unified_tower import UnifiedTower

TEXTS = ("apple pie", "", "bicycle repair and apple pie", "日本 料理", "apple pie", "größe " * 300)
OTHERS = ("pie", "apple", "chess opening", "bicycle")


def config(*settings: str) -> Config:
    return load_config(None, [*TINY, "training.feature_dropout=0", *settings])


def tower(*settings: str, seed: int = 0) -> UnifiedTower:
    made = UnifiedTower(config(*settings), seed)
    # Weights of a tower in the middle of its training: at the start the residual part and the gates are zero.
    generator = torch.Generator().manual_seed(9)
    made.embedding.gates.uniform_(-0.5, 0.5, generator=generator)
    for parameter in made.head.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def chance() -> np.random.Generator:
    return np.random.default_rng(4)


def direction(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(8).standard_normal((count, 32)).astype(np.float32))


def by_numpy(made: UnifiedTower, bags: Bags) -> NDArray[np.float64]:
    weight = {name: value.detach().double().numpy() for name, value in made.head.state_dict().items()}
    table = made.embedding.table.double().numpy() * np.exp(made.embedding.gates.double().numpy())[:, None]
    found = []
    for start, stop in zip(bags.offsets[:-1], bags.offsets[1:], strict=True):
        pooled = bags.weights[start:stop].astype(np.float64) @ table[bags.rows[start:stop]]
        length = np.linalg.norm(pooled)
        start_at = pooled / length if length else pooled
        if made.head.hidden:
            start_at = start_at * 32**0.5
            normed = (start_at - start_at.mean()) / np.sqrt(start_at.var() + 1e-5)
            normed = normed * weight["norm.weight"] + weight["norm.bias"]
            wide = weight["widen.weight"] @ normed + weight["widen.bias"]
            active = wide * np.vectorize(_normal_share)(wide)
            start_at = start_at + weight["narrow.weight"] @ active + weight["narrow.bias"]
            start_at = start_at / np.linalg.norm(start_at)
        found.append(start_at)
    return np.array(found)


def _normal_share(value: float) -> float:
    return float(torch.special.ndtr(torch.tensor(value, dtype=torch.float64)))


@pytest.mark.parametrize("hidden", [0, 32])
def test_vectors_are_those_of_float64_numpy(hidden: int) -> None:
    made = tower(f"tower.hidden={hidden}")
    bags = made.prepare(TEXTS)
    wanted = by_numpy(made, bags)
    assert np.abs(made.encode(bags).numpy() - wanted).max() < 1e-5
    assert np.abs(made.batch(bags, chance()).detach().numpy() - wanted).max() < 1e-5
    lengths = np.linalg.norm(wanted, axis=1)
    assert np.delete(lengths, 1) == pytest.approx(1.0)
    assert made.encode(bags.take(np.zeros(0, dtype=np.int64))).shape == (0, 32)
    assert made.batch(bags.take(np.zeros(0, dtype=np.int64)), chance()).shape == (0, 32)


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("calls", [2, 3])
def test_several_calls_of_a_step_equal_one_stacked_call(hidden: int, calls: int) -> None:
    settings = (f"tower.hidden={hidden}",)
    one, parts = tower(*settings), tower(*settings)
    texts = [TEXTS, OTHERS, ("chess", "apple")][:calls]
    bags = [one.prepare(part) for part in texts]
    for step in range(3):
        together = one.batch(stack_bags(*bags), chance())
        (together * direction(len(together))).sum().backward()  # type: ignore[no-untyped-call]
        apart = torch.cat([parts.batch(part, chance()) for part in bags])
        (apart * direction(len(apart))).sum().backward()  # type: ignore[no-untyped-call]
        for whole, merged in zip(one.gradients(), parts.gradients(), strict=True):
            assert torch.allclose(whole, merged, atol=1e-5)
        one.update(1.0 - step / 10)
        parts.update(1.0 - step / 10)
        assert one.gradients() == []
    for name, value in one.tensors().items():
        assert torch.allclose(value, parts.tensors()[name], atol=1e-5), name


def test_calls_without_a_gradient_have_no_part_in_the_step() -> None:
    one, other = tower(), tower()
    bags = one.prepare(TEXTS)
    for made in (one, other):
        if made is other:
            with torch.no_grad():
                made.batch(bags, chance())
            made.batch(made.prepare(OTHERS), chance())  # in the graph, and never part of a loss
        vectors = made.batch(bags, chance())
        (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
        made.update(1.0)
    assert torch.equal(one.embedding.table, other.embedding.table)


def test_a_step_touches_the_rows_of_its_texts_alone() -> None:
    made = tower()
    bags, before = made.prepare(TEXTS), made.embedding.table.clone()
    vectors = made.batch(bags, chance())
    (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
    made.update(1.0)
    changed = (made.embedding.table != before).any(dim=1).nonzero()[:, 0].tolist()
    assert set(changed) <= set(bags.rows.tolist())
    assert len(changed) > 0.9 * len(set(bags.rows.tolist()))


def test_the_same_chance_gives_the_same_vectors_and_leaves_torch_s_own_alone() -> None:
    made = UnifiedTower(load_config(None, [*TINY, "training.feature_dropout=0.5", "tower.dropout=0.5"]), 0)
    made.head.narrow.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    bags, before = made.prepare(TEXTS), torch.get_rng_state()
    one, same = made.batch(bags, chance()), made.batch(bags, chance())
    other = made.batch(bags, np.random.default_rng(5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made.encode(bags), made.encode(bags))


def step(made: UnifiedTower, times: int = 1) -> None:
    bags = made.prepare(TEXTS)
    for _ in range(times):
        vectors = made.batch(bags, chance())
        (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
        made.update(0.5)


def test_what_tensors_gives_load_takes_and_training_goes_on_alike() -> None:
    one = tower()
    step(one, 3)
    kept = {name: value.clone() for name, value in one.tensors().items()}
    other = tower(seed=77)
    other.load(kept)
    step(one)
    step(other)
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name
        assert value.device.type == "cpu"
    weights = [name for name in kept if name.startswith("weight.")]
    assert {"weight.table", "weight.gates", "weight.head.narrow.weight"} <= set(weights)


@pytest.mark.parametrize("settings", [("tower.dim=16",), ("features.rows=64",), ("tower.hidden=8",)])
def test_another_model_s_tensors_are_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        tower(*settings).load(tower().tensors())


def test_seeds_give_different_towers_and_equal_seeds_the_same() -> None:
    def table(seed: int) -> Any:
        return UnifiedTower(config(), seed).embedding.table

    assert torch.equal(table(3), table(3))
    assert not torch.equal(table(3), table(4))


def test_the_exported_graph_says_the_same(tmp_path: Path) -> None:
    from index.encoder import Encoder
    from index.features import Featurizer

    made = tower()
    made.export(tmp_path, "query")
    encoder = Encoder(tmp_path / "query.onnx", Featurizer(made.spec))
    assert np.abs(encoder.texts(TEXTS) - by_numpy(made, made.prepare(TEXTS))).max() < 1e-5
