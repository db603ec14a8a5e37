"""Gradients through the cache against the same calls without it, chance included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.gradient_cache import Chunked, cached_backward, chunks_of
from training.losses import SigmoidLoss, decoupled_softmax

FEATURES = 12


@dataclass(frozen=True, slots=True)
class Rows:
    """Items of a tower whose texts are rows of numbers."""

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self.values), dtype=np.int64)

    def take(self, texts: NDArray[np.int64], /) -> Rows:
        return Rows(self.values[texts])


class SmallTower(nn.Module):
    """An MLP with dropout and noise, all its chance from the generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Dropout(0.4), nn.Linear(16, 5)).double()
        self.alive, self.most_alive = 0, 0

    def batch(self, items: Rows, random: np.random.Generator) -> Tensor:
        keep = random.random(items.values.shape) >= 0.2
        torch.manual_seed(int(random.integers(1 << 62)))
        return self.encode(torch.from_numpy(items.values * keep).double())

    def from_torch(self, items: Rows, random: np.random.Generator) -> Tensor:
        """With torch's own chance, as a module has it that knows of no generator."""
        return self.encode(torch.from_numpy(items.values).double())

    def encode(self, values: Tensor) -> Tensor:
        vectors: Tensor = nn.functional.normalize(self.layers(values), dim=1)
        if vectors.requires_grad:
            self.alive += len(values)
            self.most_alive = max(self.most_alive, self.alive)
            vectors.register_hook(lambda _: self._done(len(values)))  # type: ignore[no-untyped-call]
        return vectors

    def _done(self, count: int) -> None:
        self.alive -= count


def rows_of(count: int, seed: int) -> Rows:
    return Rows(np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32))


def loss_of(queries: Tensor, labels: Tensor) -> Tensor:
    positive = torch.eye(len(queries), len(labels), dtype=torch.bool)
    return decoupled_softmax(queries @ labels.T / 0.1, positive)


Encode = Callable[[SmallTower], Callable[[Rows, np.random.Generator], Tensor]]
ENCODES: list[Encode] = [lambda tower: tower.batch, lambda tower: tower.from_torch]


def sides_of(encode: Encode, towers: list[SmallTower], counts: list[int], size: int) -> list[Chunked[Rows]]:
    return [
        Chunked(encode(tower), chunks_of(rows_of(count, seed), size))
        for seed, (tower, count) in enumerate(zip(towers, counts, strict=True))
    ]


def directly(sides: list[Chunked[Rows]], random: np.random.Generator) -> Tensor:
    return loss_of(*(torch.cat([side.encode(chunk, random) for chunk in side.chunks]) for side in sides))


def gradients(tower: SmallTower) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in tower.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("encode", ENCODES)
@pytest.mark.parametrize("counts", [[7, 10], [1, 1], [6, 6], [0, 4], [0, 0]])
@pytest.mark.parametrize("size", [0, 1, 3, 100])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_the_direct_computation(encode: Encode, counts: list[int], size: int, shared: bool) -> None:
    towers = [SmallTower(0)] * 2 if shared else [SmallTower(0), SmallTower(1)]
    sides = sides_of(encode, towers, counts, size)
    found = []
    for cached in (False, True):
        for tower in towers:
            tower.zero_grad()
        random = np.random.default_rng(5)
        torch.manual_seed(6)
        if cached:
            loss = cached_backward(sides, loss_of, random)
            assert not loss.requires_grad
        else:
            loss = directly(sides, random)
            loss.backward()  # type: ignore[no-untyped-call]
        after = (random.random(), float(torch.rand(())))
        found.append((loss.detach(), [gradients(tower) for tower in towers], after))
    assert len(found[0][1][0]) == 4
    torch.testing.assert_close(found[1][:2], found[0][:2], rtol=1e-6, atol=1e-9)
    assert found[0][2] == found[1][2]


def test_dropout_takes_part() -> None:
    towers = [SmallTower(0), SmallTower(1)]
    sides = sides_of(ENCODES[0], towers, [6, 6], 2)
    losses = {float(cached_backward(sides, loss_of, np.random.default_rng(seed))) for seed in range(5)}
    assert len(losses) == 5


def test_only_one_chunk_of_activations_is_alive() -> None:
    towers = [SmallTower(0), SmallTower(1)]
    cached_backward(sides_of(ENCODES[0], towers, [9, 12], 3), loss_of, np.random.default_rng(0))
    assert [tower.most_alive for tower in towers] == [3, 3]
    directly(sides_of(ENCODES[0], towers, [9, 12], 3), np.random.default_rng(0))
    assert [tower.most_alive for tower in towers] == [9, 12]


def test_the_loss_own_parameters_and_chance_take_part() -> None:
    towers = [SmallTower(0), SmallTower(1)]
    sides = sides_of(ENCODES[0], towers, [4, 4], 3)
    sigmoid = SigmoidLoss()
    drawn: list[float] = []
    random = np.random.default_rng(3)
    torch.manual_seed(1)

    def loss(queries: Tensor, labels: Tensor) -> Tensor:
        drawn.append(random.random())
        torch.manual_seed(2)
        result: Tensor = sigmoid(queries @ labels.T * 20, torch.eye(4, dtype=torch.bool))
        return result

    cached_backward(sides, loss, random)
    assert len(drawn) == 1
    assert sigmoid.bias.grad is not None
    assert float(sigmoid.bias.grad) != 0
    assert drawn[0] != random.random()
    assert torch.initial_seed() == 2


def test_a_frozen_tower_and_one_that_the_loss_ignores() -> None:
    towers = [SmallTower(0), SmallTower(1), SmallTower(2)]
    for parameter in towers[1].parameters():
        parameter.requires_grad_(False)
    sides = sides_of(ENCODES[0], towers, [4, 5, 6], 2)
    cached_backward(sides, lambda queries, labels, ignored: loss_of(queries, labels), np.random.default_rng(0))
    assert [len(gradients(tower)) for tower in towers] == [4, 0, 0]


def test_gradients_under_autocast_reach_the_weights() -> None:
    towers = [SmallTower(0).float(), SmallTower(1).float()]

    def narrow(tower: SmallTower) -> Callable[[Rows, np.random.Generator], Tensor]:
        return lambda items, random: tower.encode(torch.from_numpy(items.values))

    sides = [Chunked(narrow(tower), [rows_of(4, 0)]) for tower in towers]
    with torch.autocast("cpu", torch.bfloat16):
        cached_backward(sides, loss_of, np.random.default_rng(0))
    assert [len(gradients(tower)) for tower in towers] == [4, 4]


def test_gradients_add_up() -> None:
    towers = [SmallTower(0), SmallTower(1)]
    sides = sides_of(ENCODES[0], towers, [4, 4], 3)
    cached_backward(sides, loss_of, np.random.default_rng(3))
    once = gradients(towers[0])
    cached_backward(sides, loss_of, np.random.default_rng(3))
    torch.testing.assert_close(gradients(towers[0]), [2 * gradient for gradient in once])


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (3, 0, [3]), (3, 9, [3]), (0, 2, [0]), (2, 1, [1, 1])],
)
def test_chunks_keep_the_order(count: int, size: int, expected: list[int]) -> None:
    rows = rows_of(count, 0)
    chunks = chunks_of(rows, size)
    assert [len(chunk) for chunk in chunks] == expected
    np.testing.assert_array_equal(np.concatenate([chunk.values for chunk in chunks]), rows.values)
