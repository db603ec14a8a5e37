"""Attention over histories: what is chosen and its gradients against plain torch in double, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training import history_attention
from training.history_attention import ATTENTION_DIM, NEWEST, HistoryAttention, history_sums, newest_of
from training.trained_table import TrainedRows, TrainedTable
from training.unified_embedding import UnifiedEmbedding
from unified_support import history_sum, sequence_of

ROWS, DIM = 40, 6
HISTORIES: tuple[list[int], ...] = (
    [],
    [3],
    [4, 4],
    [1, 2, 3, 4, 5, 6, 7],
    list(range(30)),
    [9] * 12,
    list(range(ROWS)) * 5,
)


def parts(top: int) -> tuple[HistoryAttention, TrainedRows, TrainedTable, Tensor]:
    generator = torch.Generator().manual_seed(3)
    attention = HistoryAttention(top)
    attention.query.data.normal_(generator=generator)
    embedding = UnifiedEmbedding(ROWS, DIM, generator)
    embedding.gates.uniform_(-1, 1, generator=generator)
    weights = torch.randn(ROWS, ATTENTION_DIM, generator=generator)
    return (
        attention,
        TrainedRows({"attention": weights}, {"attention": 0.1}),
        TrainedTable(embedding, 0.1, 0.1),
        weights,
    )


@pytest.mark.parametrize("top", [1, 3, 500])
@pytest.mark.parametrize("cells", [1, 50, 1 << 18])
def test_sums_are_those_of_float64_numpy(top: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_attention, "_CELLS", cells)
    attention, scored, table, weights = parts(top)
    found = history_sums(attention, sequence_of(HISTORIES), scored, table, weights).detach().numpy()
    gated = table.embedding.folded().double().numpy()
    learned = attention.query.detach().double().numpy()
    wanted = [history_sum(one, gated, weights.double().numpy(), learned, 0.5, top) for one in HISTORIES]
    assert np.abs(found - np.array(wanted)).max() < 1e-6
    assert not found[0].any()
    assert found[1] == pytest.approx(gated[3], abs=1e-6)
    nothing = history_sums(attention, sequence_of([]), scored, table, weights)
    assert nothing.shape == (0, DIM)


@pytest.mark.parametrize("top", [2, 500])
def test_gradients_are_those_of_plain_torch_in_double(top: int) -> None:
    attention, scored, table, weights = parts(top)
    direction = torch.randn(len(HISTORIES), DIM, generator=torch.Generator().manual_seed(4))
    (history_sums(attention, sequence_of(HISTORIES), scored, table, weights) * direction).sum().backward()  # type: ignore[no-untyped-call]

    rows, gates, keys, query, slope = (
        value.detach().double().requires_grad_()
        for value in (table.embedding.table, table.embedding.gates, weights, attention.query, attention.slope)
    )
    total = torch.zeros((), dtype=torch.float64)
    for one, way in zip(HISTORIES, direction.double(), strict=True):
        if one:
            ages = torch.arange(len(one) - 1, -1, -1, dtype=torch.float64)
            asks = keys[one[-NEWEST:]].mean(dim=0) + query
            scores = keys[one] @ asks / ATTENTION_DIM**0.5 - slope * torch.log(1 + ages)
            best = scores.topk(min(top, len(one)))
            kept = [one[place] for place in best.indices.tolist()]
            total = total + best.values.softmax(dim=0) @ (rows[kept] * gates[kept].exp()[:, None]) @ way
    total.backward()  # type: ignore[no-untyped-call]
    for made, wanted in ((table, (rows, gates)), (scored, (keys,))):
        made.gradients()  # merges
        (touched,) = made._touched
        for leaf, value in zip(touched.leaves, wanted, strict=True):
            dense = torch.zeros_like(value)
            assert leaf.grad is not None and value.grad is not None
            dense[touched.where] = leaf.grad.double()
            assert torch.allclose(dense, value.grad, atol=1e-5)
    for parameter, value in ((attention.query, query), (attention.slope, slope)):
        assert parameter.grad is not None and value.grad is not None
        assert torch.allclose(parameter.grad.double(), value.grad, atol=1e-5)


def test_the_newest_are_the_last_oldest_first() -> None:
    newest = newest_of(sequence_of(HISTORIES))
    assert newest.rows[3].tolist() == [3, 4, 5, 6, 7]
    assert newest.ages[3].tolist() == [4, 3, 2, 1, 0]
    assert newest.mask.sum(dim=1).tolist() == [0, 1, 2, 5, 5, 5, 5]
    assert newest.rows[2].tolist() == [4, 4, 0, 0, 0]


def test_of_equal_values_the_newest_count_most() -> None:
    attention, _, _, weights = parts(2)
    chosen = attention.choose(sequence_of([[9, 9, 9, 9]]), weights)
    assert chosen.ages.tolist() == [[0.0, 1.0]]
    shares = attention(weights[[9] * NEWEST][None], torch.ones(1, NEWEST), weights[[9, 9]][None], chosen)
    assert shares.detach().numpy() == pytest.approx(np.array([[1, 2**-0.5]]) / (1 + 2**-0.5))


def test_a_batch_without_values_has_gradients_all_the_same() -> None:
    attention, scored, table, weights = parts(4)
    history_sums(attention, sequence_of([[], []]), scored, table, weights).sum().backward()  # type: ignore[no-untyped-call]
    assert attention.query.grad is not None and not attention.query.grad.any()
    scored.update(1.0)
    table.update(1.0)
    assert not table.known.any() and not scored.known.any()
