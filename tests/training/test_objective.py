"""The loss of a batch against float64 NumPy: nested widths, mixed queries, what is left out and what is weighted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.errors import InputError
from training import objective as module
from training.config import LossConfig
from training.negatives import Pool
from training.objective import Compared, Objective

Array = NDArray[np.float64]
TEMPERATURE = 0.1


class Drawn:
    """A generator that says what the test wants: it cannot be right by drawing the same way as what is tested."""

    def __init__(self, share: float, partner: list[int]) -> None:
        self.share, self.partner = share, np.array(partner)

    def integers(self, below: int) -> int:
        return 5

    def beta(self, one: float, other: float) -> float:
        return self.share

    def permutation(self, count: int) -> NDArray[np.int64]:
        assert count == len(self.partner)
        return self.partner


def chance(share: float = 0.5, partner: list[int] | None = None) -> np.random.Generator:
    return cast(np.random.Generator, Drawn(share, partner or [1, 2, 3, 0]))


def units(count: int, seed: int, dim: int = 8) -> torch.Tensor:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@dataclass(frozen=True)
class Oracle:
    """The same in float64 loops. own: (query, column) -> vector; weight: (p,), e^log_weight; out: (b, p) bool;
    rest: vectors and weights."""

    queries: Array
    labels: Array
    positive: NDArray[np.bool_]
    own: dict[tuple[int, int], Array]
    weight: Array
    out: NDArray[np.bool_]
    rest: tuple[Array, Array]
    name: str = "decoupled_softmax"

    def at(self, width: int) -> Oracle:
        def cut(vectors: Array) -> Array:
            return _unit(vectors[..., :width])

        own = {pair: cut(vector) for pair, vector in self.own.items()}
        return replace(
            self, queries=cut(self.queries), labels=cut(self.labels), own=own, rest=(cut(self.rest[0]), self.rest[1])
        )

    def terms(
        self, query: Array, place: int | None, out: NDArray[np.bool_], carried: NDArray[np.bool_]
    ) -> tuple[Array, Array]:
        """e^score of every label of the pool, and of the rest; weights only for those that are no positives."""
        inside = np.zeros(len(self.labels))
        for column, label in enumerate(self.labels):
            vector = label if place is None else self.own.get((place, column), label)
            weight = 1.0 if carried[column] else self.weight[column]
            inside[column] = 0.0 if out[column] else weight * np.exp(query @ vector / TEMPERATURE)
        return inside, self.rest[1] * np.exp(self.rest[0] @ query / TEMPERATURE)

    def of(self, inside: Array, rest: Array, positive: NDArray[np.bool_]) -> float:
        """One query's loss."""
        found = [column for column in np.flatnonzero(positive) if inside[column] > 0]
        against = inside.sum() + rest.sum() if self.name == "softmax" else inside[~positive].sum() + rest.sum()
        if self.name == "softmax":
            losses = [-np.log(inside[column] / against) for column in found]
        else:
            losses = [np.log1p(against / inside[column]) for column in found]
        return float(np.mean(losses)) if losses else 0.0

    def plain(self) -> float:
        losses = []
        for place, query in enumerate(self.queries):
            inside, rest = self.terms(query, place, self.out[place], self.positive[place])
            losses.append(self.of(inside, rest, self.positive[place]))
        return float(np.mean(losses))

    def mixed(self, share: float, partner: list[int]) -> float:
        losses = []
        for place, other in enumerate(partner):
            query = _unit(share * self.queries[place] + (1 - share) * self.queries[other])
            mine, theirs = self.positive[place], self.positive[other]
            for positive, against, part in ((mine, theirs, share), (theirs, mine, 1 - share)):
                out = self.out[place] | (against & ~positive)
                inside, rest = self.terms(query, None, out, mine | theirs)
                losses.append(part * self.of(inside, rest, positive))
        return float(np.sum(losses)) / len(partner)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def case(**parts: Any) -> tuple[Compared, Oracle]:
    """Four queries, six labels in the pool. parts: which of own, weight, ignored and rest there are."""
    positive = np.zeros((4, 6), dtype=bool)
    for place, carried in enumerate(([0], [1, 2], [2, 5], [0, 3, 4])):
        positive[place, carried] = True
    queries, labels = units(4, 0), units(6, 1)
    own = units(int(positive.sum()), 2) if parts.get("own") else None
    weight = np.array([0, 0.7, 0, -1.2, 2.0, 0], dtype=np.float32) if parts.get("weight") else None
    ignored = None
    if parts.get("ignored"):
        ignored = np.zeros((4, 6), dtype=bool)
        ignored[0, [3, 5]] = ignored[2, 0] = True
    rest = None
    if parts.get("rest"):
        shift = torch.tensor([-torch.inf, 0.0, np.log(0.2), 0.0, 0.0, -torch.inf, 0.0, 0.0])
        rest = (units(8, 3), shift)
    compared = Compared(queries, labels, Pool(np.arange(6), positive, ignored, weight), own, rest)
    pairs = list(zip(*positive.nonzero(), strict=True))
    oracle = Oracle(
        queries.numpy().astype(np.float64),
        labels.numpy().astype(np.float64),
        positive,
        {} if own is None else dict(zip(pairs, own.numpy().astype(np.float64), strict=True)),
        np.ones(6) if weight is None else np.exp(weight.astype(np.float64)),
        np.zeros((4, 6), dtype=bool) if ignored is None else ignored,
        (np.zeros((1, 8)) + 1, np.zeros(1))
        if rest is None
        else (rest[0].numpy().astype(np.float64), np.exp(rest[1].numpy().astype(np.float64))),
    )
    return compared, oracle


ALL = {"own": True, "weight": True, "ignored": True, "rest": True}
PARTS: list[dict[str, bool]] = [{}, *({name: True} for name in ALL), ALL]


def loss(compared: Compared, random: np.random.Generator | None = None, **settings: Any) -> float:
    config = LossConfig(temperature=TEMPERATURE, **settings)
    return float(Objective(config, 8)(compared, chance() if random is None else random).detach())


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "+".join(parts) or "plain")
@pytest.mark.parametrize("name", ["decoupled_softmax", "softmax"])
def test_the_loss_is_that_of_float64_numpy(name: str, parts: dict[str, bool]) -> None:
    compared, oracle = case(**parts)
    oracle = replace(oracle, name=name)
    assert loss(compared, name=name) == pytest.approx(oracle.plain(), rel=1e-5)
    nested = np.mean([oracle.at(2).plain(), oracle.at(5).plain(), oracle.plain()])
    assert loss(compared, name=name, prefixes=(2, 5)) == pytest.approx(nested, rel=1e-5)
    share, partner = 0.3, [2, 1, 3, 0]
    wanted = oracle.plain() + 0.7 * oracle.mixed(share, partner)
    assert loss(compared, chance(share, partner), name=name, mixup=0.7) == pytest.approx(wanted, rel=1e-5)
    both = np.mean([part.plain() + 0.7 * part.mixed(share, partner) for part in (oracle.at(2), oracle)])
    found = loss(compared, chance(share, partner), name=name, mixup=0.7, prefixes=(2,))
    assert found == pytest.approx(both, rel=1e-5)


def test_widths_from_that_of_the_vectors_on_are_the_whole_vector() -> None:
    compared, oracle = case()
    assert Objective(LossConfig(prefixes=(2, 8, 500)), 8).widths == [2, 8]
    assert loss(compared, prefixes=(8, 500)) == pytest.approx(oracle.plain(), rel=1e-5)


@pytest.mark.parametrize("name", ["decoupled_softmax", "softmax", "softmax_without_positives", "softmax_one_positive"])
def test_the_rest_streamed_is_the_rest_held(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, values = [], []
    for held in (module._HELD_SCORES, 0):
        monkeypatch.setattr(module, "_HELD_SCORES", held)
        monkeypatch.setattr(module, "_CHUNK", 3)
        compared, _ = case(**ALL)
        queries, labels = compared.queries.clone().requires_grad_(), compared.labels.clone().requires_grad_()
        config = LossConfig(name=name, temperature=TEMPERATURE, prefixes=(3,), mixup=0.5)
        value = Objective(config, 8)(replace(compared, queries=queries, labels=labels), chance())
        value.backward()  # type: ignore[no-untyped-call]
        assert queries.grad is not None
        assert labels.grad is not None
        values.append(float(value.detach()))
        gradients.append((queries.grad, labels.grad))
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    for held_one, streamed in zip(*gradients, strict=True):
        assert torch.allclose(held_one, streamed, atol=1e-5)


def test_pool_and_rest_are_the_softmax_over_all_labels() -> None:
    queries, labels = units(4, 0), units(30, 1)
    truth = np.random.default_rng(0).random((4, 30)) < 0.1
    truth[:, 0] = True
    inside = np.union1d(np.flatnonzero(truth.any(axis=0)), [3, 29])
    shift = torch.zeros(30)
    shift[torch.from_numpy(inside)] = -torch.inf
    pool = Pool(inside, truth[:, inside], None, None)
    whole = Pool(np.arange(30), truth, None, None)
    for name in ("decoupled_softmax", "softmax", "sigmoid", "soft_top_k"):
        by_parts = loss(Compared(queries, labels[torch.from_numpy(inside)], pool, rest=(labels, shift)), name=name)
        assert by_parts == pytest.approx(loss(Compared(queries, labels, whole), name=name), rel=1e-4)


@pytest.mark.parametrize("name", ["decoupled_softmax", "softmax", "sigmoid", "soft_top_k"])
def test_gradients_flow_to_queries_labels_and_own_and_not_to_the_rest(name: str) -> None:
    compared, _ = case(own=True, rest=True)
    assert compared.own is not None
    assert compared.rest is not None
    leaves = [part.clone().requires_grad_() for part in (compared.queries, compared.labels, compared.own)]
    rest = compared.rest[0].clone()
    objective = Objective(LossConfig(name=name, temperature=TEMPERATURE, prefixes=(4,), mixup=0.4), 8)
    given = Compared(leaves[0], leaves[1], compared.pool, leaves[2], (rest, compared.rest[1]))
    objective(given, chance()).backward()  # type: ignore[no-untyped-call]
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad.abs().sum(dim=1) > 0).all()
    assert rest.grad is None
    assert torch.equal(rest, compared.rest[0])
    assert all(parameter.grad is not None for parameter in objective.loss.parameters())


def test_the_gradient_is_that_of_finite_differences() -> None:
    compared, _ = case(weight=True, ignored=True, rest=True)
    wide = replace(
        compared,
        queries=compared.queries.double(),
        labels=compared.labels.double(),
        rest=compared.rest and (compared.rest[0].double(), compared.rest[1].double()),
    )
    objective = Objective(LossConfig(temperature=TEMPERATURE, prefixes=(3,), mixup=0.5), 8)

    def of(queries: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return objective(replace(wide, queries=queries, labels=labels), chance())

    assert torch.autograd.gradcheck(of, (wide.queries.requires_grad_(), wide.labels.requires_grad_()))


def test_a_single_query_mixed_with_itself_and_one_label() -> None:
    pool = Pool(np.array([4]), np.array([[True]]), None, None)
    compared = Compared(units(1, 0), units(1, 1), pool)
    assert loss(compared, chance(0.4, [0]), mixup=1.0) == 0.0
    assert loss(compared, chance(0.4, [0]), mixup=1.0, name="softmax") == pytest.approx(0.0, abs=1e-6)


def test_an_unknown_loss_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"loss: there is no 'hinge'; choose one of decoupled_softmax, "):
        Objective(LossConfig(name="hinge"), 8)
