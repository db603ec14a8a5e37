"""Pools: no label of a query is ever its negative, and what is drawn, mined or cached stands for what it should."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training import negatives as module
from training.config import NegativesConfig
from training.negatives import Negatives, Pool, draw

KINDS = ("in_batch", "uniform", "clustered", "mined", "all", "cached")
TEMPERATURE = 0.05


@dataclass(frozen=True)
class Case:
    """A random corpus with its truth as sets, a batch of its queries, and unit vectors of these and of all labels."""

    relevance: csr_matrix
    excluded: csr_matrix
    own: list[set[int]]
    ignored: list[set[int]]
    queries: NDArray[np.int64]
    vectors: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def random(cls, seed: int, *, queries: int = 25, labels: int = 40, unseen: int = 8) -> Case:
        random = np.random.default_rng(seed)
        dense = random.random((queries, labels)) < 0.08
        without = random.choice(labels - 1, unseen, replace=False)  # so that the last label is seen
        dense[:, without] = False
        dense[:, labels - 1] |= random.random(queries) < 0.2
        dense[np.arange(queries), random.choice(np.setdiff1d(np.arange(labels), without), queries)] = True
        if not unseen:
            dense[np.arange(labels) % queries, np.arange(labels)] = True
        excluded = random.random((queries, labels)) < 0.06
        batch = np.sort(random.choice(queries, min(queries, 7), replace=False))
        vectors = random.standard_normal((len(batch) + labels, 6)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls(
            csr_matrix(dense.astype(np.float32)),
            csr_matrix(excluded.astype(np.float32)),
            [set(np.flatnonzero(row).tolist()) for row in dense],
            [set(np.flatnonzero(row).tolist()) for row in excluded],
            batch,
            torch.from_numpy(vectors[: len(batch)]),
            torch.from_numpy(vectors[len(batch) :]),
        )

    def negatives(self, **settings: Any) -> Negatives:
        made = Negatives(self.relevance, self.excluded, NegativesConfig(**settings), TEMPERATURE)
        if made.due(0):
            made.refresh(self.labels)
        return made

    def pool(self, seed: int = 0, **settings: Any) -> Pool:
        return self.negatives(**settings).pool(self.queries, self.vectors, np.random.default_rng(seed))

    @property
    def chances(self) -> NDArray[np.float64]:
        return np.where(self.relevance.toarray().any(axis=0), 1.0, 0.2)


def counted(**settings: Any) -> dict[str, Any]:
    return {"sampled": 9, "mined": 3, "hardest": 6, **settings}


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_s_own_labels_are_in_the_pool_and_never_negatives(kind: str) -> None:
    for seed in range(25):
        case = Case.random(seed)
        pool = case.pool(seed, **counted(kind=kind, log_weight=bool(seed % 2)))
        labels = pool.labels.tolist()
        assert labels == sorted(set(labels))
        assert set(labels) <= set(range(40))
        assert pool.positive.shape == (len(case.queries), len(labels))
        for place, query in enumerate(case.queries):
            own = case.own[query]
            assert own <= set(labels)
            assert {labels[column] for column in np.flatnonzero(pool.positive[place])} == own
            assert pool.ignored is not None
            left_out = {labels[column] for column in np.flatnonzero(pool.ignored[place])}
            assert left_out == (case.ignored[query] - own) & set(labels)


def test_pools_hold_what_their_kind_says() -> None:
    for seed in range(10):
        case = Case.random(seed)
        carried = set.union(*(case.own[query] for query in case.queries))
        sizes = {kind: len(case.pool(seed, **counted(kind=kind)).labels) for kind in KINDS}
        assert case.pool(kind="in_batch").labels.tolist() == sorted(carried)
        assert case.pool(kind="all").labels.tolist() == list(range(40))
        assert sizes["uniform"] == sizes["clustered"] == len(carried) + 9
        assert len(carried) + 9 <= sizes["mined"] <= len(carried) + 9 + 3 * len(case.queries)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [1, 2])
def test_one_query_and_hardly_any_labels(kind: str, labels: int) -> None:
    relevance = csr_matrix(np.eye(1, labels, labels - 1, dtype=np.float32))
    made = Negatives(relevance, None, NegativesConfig(kind=kind), TEMPERATURE)
    if made.due(0):
        made.refresh(torch.eye(labels, 3))
    pool = made.pool(np.array([0]), torch.eye(1, 3), np.random.default_rng(0))
    assert pool.positive[0, pool.labels == labels - 1].tolist() == [True]
    assert pool.positive.sum() == 1
    assert pool.ignored is None
    if labels == 2 and kind in ("all", "cached"):
        # Label 0 is in no record: as a negative it counts by its share.
        assert pool.log_weight == pytest.approx(np.log([0.2, 1.0]))
    else:
        assert pool.log_weight is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_every_query_carries_is_never_a_negative(kind: str) -> None:
    dense = np.eye(6, dtype=np.float32)
    dense[:, 5] = 1
    made = Negatives(csr_matrix(dense), None, NegativesConfig(kind=kind, mined=2, sampled=3), TEMPERATURE)
    vectors = torch.nn.functional.normalize(torch.ones(6, 4) + 0.1 * torch.eye(6, 4), dim=1)
    made.refresh(vectors)  # all nearly the same: every label is near
    pool = made.pool(np.arange(6), vectors, np.random.default_rng(0))
    assert pool.positive[:, pool.labels == 5].all()
    assert pool.positive.sum() == np.count_nonzero(dense)


def test_mined_labels_are_the_nearest_wrong_ones() -> None:
    for seed in range(10):
        case = Case.random(seed)
        wanted = set.union(*(case.own[query] for query in case.queries))
        scores = case.vectors.numpy().astype(np.float64) @ case.labels.numpy().astype(np.float64).T
        for row, query in zip(scores, case.queries, strict=True):
            wrong = [label for label in np.argsort(-row).tolist() if label not in case.own[query]]
            wanted |= set(wrong[:3])
        assert set(case.pool(kind="mined", mined=3, sampled=0).labels.tolist()) == wanted


def test_mining_more_than_there_are_gives_all_labels() -> None:
    assert Case.random(0).pool(kind="mined", mined=500, sampled=0).labels.tolist() == list(range(40))


def test_mining_through_cells_finds_mostly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.random(4, queries=60, labels=2000, unseen=100)
    exact = set(case.pool(kind="mined", mined=5, sampled=0).labels.tolist())
    monkeypatch.setattr(module, "_EXACT_BELOW", 1)
    found = set(case.pool(kind="mined", mined=5, sampled=0).labels.tolist())
    assert len(exact & found) > 0.5 * len(exact)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("hardest", [0, 6, 39, 1000])
def test_cached_pool_and_rest_cover_every_label_once(share: float, hardest: int) -> None:
    for seed in range(8):
        case = Case.random(seed)
        made = case.negatives(kind="cached", hardest=hardest, unseen_share=share)
        pool = made.pool(case.queries, case.vectors, np.random.default_rng(0))
        seen = case.relevance.toarray().any(axis=0)
        inside = np.isin(np.arange(40), pool.labels)
        if share == 0:
            assert not (inside & ~seen & ~case.excluded[case.queries].toarray().any(axis=0)).any()
        rest = made.rest(pool)
        outside = np.where(inside, 0.0, np.where(seen, 1.0, share))
        if rest is None:
            assert not outside.any()
            continue
        assert torch.equal(rest[0], case.labels)
        assert np.exp(rest[1].double().numpy()) == pytest.approx(outside, abs=1e-6)
        # What a query shall not be compared with must be in the pool, where it can be left out.
        for query in case.queries:
            assert not outside[sorted(case.ignored[query] | case.own[query])].any()


def test_the_hardest_are_those_with_the_most_wrong_probability() -> None:
    for seed in range(8):
        case = Case.random(seed, unseen=0)
        scores = case.vectors.double().numpy() @ case.labels.double().numpy().T / TEMPERATURE
        wrong = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        for place, query in enumerate(case.queries):
            wrong[place, sorted(case.own[query])] = 0
        forced = set.union(*(case.own[query] | case.ignored[query] for query in case.queries))
        wanted = set(np.argsort(-wrong.sum(axis=0))[:6].tolist()) | forced
        assert set(case.pool(kind="cached", hardest=6).labels.tolist()) == wanted


def test_write_back_changes_these_rows_only_and_the_trainer_s_vectors_never() -> None:
    case = Case.random(0)
    made, before = case.negatives(kind="cached"), case.labels.clone()
    new = torch.nn.functional.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    made.write_back(np.array([0, 7, 39]), new.requires_grad_())
    wanted = before.clone()
    wanted[[0, 7, 39]] = new.detach()
    assert made.cache is not None
    assert torch.equal(made.cache, wanted)
    assert not made.cache.requires_grad
    assert torch.equal(case.labels, before)
    again = case.negatives(kind="cached")
    again.load(made.tensors())
    assert again.cache is not None
    assert torch.equal(again.cache, wanted)
    mined = case.negatives(kind="mined")
    mined.write_back(np.array([0]), new[:1])
    assert mined.cache is not None
    assert torch.equal(mined.cache, before)


def test_vectors_are_due_at_once_and_then_every_so_many_steps() -> None:
    case = Case.random(0)
    for kind in KINDS:
        made = Negatives(case.relevance, None, NegativesConfig(kind=kind, refresh=3), TEMPERATURE)
        cached = kind in ("mined", "cached")
        assert made.due(4) == cached
        made.refresh(case.labels)
        assert [step for step in range(8) if made.due(step)] == ([0, 3, 6] if cached else [])
        assert made.describe()


@pytest.mark.parametrize(("share", "kind"), [(1.0, "uniform"), (0.2, "uniform"), (0.0, "uniform"), (0.2, "mined")])
def test_drawn_labels_stand_for_all_that_might_have_been_drawn(share: float, kind: str) -> None:
    case = Case.random(2, labels=120, unseen=60)
    made = case.negatives(kind=kind, sampled=40, mined=2, unseen_share=share, log_weight=True)
    one, random = np.array([case.queries[0]]), np.random.default_rng(5)
    terms = np.exp(case.labels.double().numpy() @ case.vectors[0].double().numpy())
    sums = []
    for _ in range(2000):
        pool = made.pool(one, case.vectors[:1], random)
        assert pool.log_weight is not None
        against = ~pool.positive[0]
        sums.append((terms[pool.labels] * np.exp(pool.log_weight.astype(np.float64)))[against].sum())
    seen = case.relevance.toarray().any(axis=0)
    weight = np.where(seen, 1.0, share)
    if kind == "mined":  # those for themselves
        fixed = case.negatives(kind=kind, sampled=0, mined=2).pool(one, case.vectors[:1], random).labels
        weight[fixed] = 1.0
    weight[sorted(case.own[one[0]])] = 0.0
    wanted = float(terms @ weight)
    error = np.std(sums) / len(sums) ** 0.5
    assert abs(np.mean(sums) - wanted) < 4 * error + 1e-6 * wanted, (np.mean(sums), wanted, error)


def test_where_all_labels_are_drawn_each_stands_for_its_own_chance() -> None:
    for unseen in (0, 8):
        case = Case.random(0, unseen=unseen)
        pool = case.pool(kind="uniform", sampled=1000, log_weight=True)
        assert pool.labels.tolist() == list(range(40))
        assert pool.log_weight is not None
        assert np.exp(pool.log_weight) == pytest.approx(case.chances, rel=1e-5)


def test_unseen_labels_are_drawn_as_often_as_their_share_says() -> None:
    case = Case.random(1, unseen=15)
    unseen = np.flatnonzero(case.chances < 1)
    for share in (0.0, 0.2, 1.0):
        made, random = case.negatives(kind="uniform", sampled=2, unseen_share=share), np.random.default_rng(5)
        one = case.queries[:1]
        drawn = np.zeros(40)
        for _ in range(1500):
            drawn[made.pool(one, None, random).labels] += 1
        # 2 draws from the seen labels outside the pool, of weight 1, and 15 of weight `share`.
        seen = 40 - 15 - len(case.own[one[0]])
        assert drawn[unseen].mean() == pytest.approx(1500 * 2 * share / (seen + 15 * share), rel=0.12)


def test_draws_are_different_places_with_a_chance() -> None:
    random, chances = np.random.default_rng(0), np.array([1.0, 0.0, 0.5, 2.0, 0.0])
    for count in range(6):
        for _ in range(30):
            places = draw(chances, count, random).tolist()
            assert len(places) == len(set(places)) == min(count, 3)
            assert set(places) <= {0, 2, 3}
    first = np.bincount([draw(chances, 1, random)[0] for _ in range(7000)], minlength=5)
    assert first / 7000 == pytest.approx([2 / 7, 0, 1 / 7, 4 / 7, 0], abs=0.02)
    assert draw(np.zeros(4), 3, random).tolist() == []


def test_the_same_chance_gives_the_same_pool() -> None:
    case = Case.random(3)
    for kind in KINDS:
        one, same = (case.pool(11, **counted(kind=kind)) for _ in range(2))
        assert one.labels.tolist() == same.labels.tolist()


def test_excluded_pairs_that_are_also_carried_stay_positive() -> None:
    case = Case.random(0)
    both = replace(case, excluded=case.relevance.copy())
    pool = both.pool(kind="uniform")
    assert pool.ignored is not None
    assert not pool.ignored.any()
