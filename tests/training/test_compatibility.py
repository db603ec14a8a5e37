"""The term that keeps new queries near old ones, against a loop in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.compatibility import Compatibility, higher_order_loss
from training.config import CompatibleConfig
from training.distributed import World


class Part(World):
    """One process of several, which sends nothing."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def unit_rows(random: np.random.Generator, rows: int, dim: int = 8) -> NDArray[np.float32]:
    vectors = random.standard_normal((rows, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def by_hand(
    old: NDArray[np.float32], new: NDArray[np.float32], labels: list[set[int]], sharpness: float
) -> list[float]:
    found = []
    for i in range(len(labels)):
        own = sharpness * float(old[i].astype(np.float64) @ new[i])
        others = [
            math.exp(sharpness * float(old[i].astype(np.float64) @ new[j]))
            for j in range(len(labels))
            if not labels[i] & labels[j]
        ]
        found.append(-own + (math.log(sum(others)) if others else 0.0))
    return found


LABELS = {
    "apart": [{0}, {1}, {2}, {3}, {4}],
    "overlapping": [{0, 1}, {1, 2}, {2}, {3}, {3, 0}],
    "some alone": [{0, 1, 2}, {0}, {1}, {2}, {0, 1, 2}],
    "all the same": [{7}] * 5,
    "twice": [{1}, {1}, {2}, {2}, {9}],
    "single": [{0}],
}


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 200.0])
@pytest.mark.parametrize("name", list(LABELS))
def test_it_is_the_formula(name: str, sharpness: float) -> None:
    labels, random = LABELS[name], np.random.default_rng(1)
    old, new = unit_rows(random, len(labels)), unit_rows(random, len(labels))
    same = torch.tensor([[bool(one & other) for other in labels] for one in labels])
    moving = torch.from_numpy(new).requires_grad_()
    found = higher_order_loss(torch.from_numpy(old), moving, same, 0, sharpness)
    assert found.tolist() == pytest.approx(by_hand(old, new, labels, sharpness), rel=1e-4, abs=1e-4)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert moving.grad is not None
    assert torch.isfinite(moving.grad).all()


def test_its_gradient_leads_to_where_the_old_vectors_are() -> None:
    random = np.random.default_rng(2)
    old = torch.from_numpy(unit_rows(random, 6, 16))
    weights = torch.from_numpy(unit_rows(random, 6, 16)).requires_grad_()
    assert (old @ weights.detach().T).argmax(dim=0).tolist() != list(range(6))
    same = torch.eye(6, dtype=torch.bool)
    for _ in range(100):
        vectors = torch.nn.functional.normalize(weights, dim=1)
        (gradient,) = torch.autograd.grad(higher_order_loss(old, vectors, same, 0, 10.0).mean(), weights)
        weights.data -= 0.1 * gradient
    assert (old @ weights.detach().T).argmax(dim=0).tolist() == list(range(6))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_parts_of_several_processes_add_up(processes: int) -> None:
    random = np.random.default_rng(3)
    labels = LABELS["overlapping"]
    relevance = csr_matrix(np.array([[float(place in one) for place in range(5)] for one in [*labels, {4}, {0}]]))
    old = unit_rows(random, 7)
    queries, new = np.array([0, 1, 2, 3, 4]), unit_rows(random, 5)
    config = CompatibleConfig(weight=0.25, sharpness=10.0)
    shares = [0.5 / processes for _ in range(processes)]  # of a loss of 0.5
    found = 0.0
    for rank, share in enumerate(shares):
        term = Compatibility(config, old, relevance, Part(rank, processes))
        found += float(term.mixed(torch.tensor(share), queries, torch.from_numpy(new)))
    wanted = 0.75 * 0.5 + 0.25 * float(np.mean(by_hand(old[queries], new, labels, 10.0)))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_queries_are_found_by_their_rows_and_none_is_nothing() -> None:
    random = np.random.default_rng(4)
    old, new = unit_rows(random, 9), unit_rows(random, 2)
    relevance = csr_matrix(np.eye(9, dtype=np.float32))
    term = Compatibility(CompatibleConfig(weight=0.5), old, relevance)
    found = float(term.mixed(torch.tensor(0.0), np.array([3, 8]), torch.from_numpy(new)))
    assert found == pytest.approx(0.5 * np.mean(by_hand(old[[3, 8]], new, [{3}, {8}], 10.0)), rel=1e-5)
    empty = term.mixed(torch.tensor(2.0), np.zeros(0, dtype=np.int64), torch.empty(0, 8))
    assert float(empty) == 1.0
