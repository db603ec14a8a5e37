"""The shift against bisection in float64, its gradient against finite differences, and how many passes it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.soft_top_k import Bracket, depth, solve, spread_sums, top_k_logits


def probabilities(scores: Tensor, k: float, alpha: float = 2.0) -> Tensor:
    """Of every label, (rows, pool)."""
    rows, columns = torch.ones_like(scores, dtype=torch.bool).nonzero(as_tuple=True)
    return top_k_logits(scores, k, alpha)(rows, columns).sigmoid().reshape(scores.shape)


def bisected(scores: NDArray[np.float64], k: float, alpha: float) -> NDArray[np.float64]:
    answer = np.zeros_like(scores)
    for row, into in zip(scores, answer, strict=True):
        low, high = -row.max() - 100, -row[row > -np.inf].min() + 100
        for _ in range(200):
            middle = (low + high) / 2
            with np.errstate(over="ignore"):
                into[:] = 1 / (1 + np.exp(-alpha * (row + middle)))
            low, high = (middle, high) if into.sum() < k else (low, middle)
    return answer


def passes(scores: Tensor, k: float, alpha: float) -> NDArray[np.int64]:
    """How many passes each row takes."""
    taken = np.zeros(len(scores), dtype=np.int64)
    bracket = Bracket.of(scores.topk(depth(k, scores.shape[1])).values, (scores > -torch.inf).sum(dim=1), k, alpha)

    def sums(rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        taken[rows.numpy()] += 1
        return spread_sums(scores[rows] - bracket.centre[rows, None], shift, alpha)

    solve(sums, bracket, alpha)
    return taken


@pytest.mark.parametrize("k", [0.3, 1.0, 2.5, 5.0, 29.0, 29.4])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_sums_to_k_and_equals_bisection(k: float, scale: float, alpha: float) -> None:
    scores = scale * np.random.default_rng(0).standard_normal((6, 30))
    scores[1] = scores[1].round()  # ties
    scores[2, 5:] = scores[2, 5]
    found = probabilities(torch.from_numpy(scores), k, alpha).numpy()
    np.testing.assert_allclose(found.sum(axis=1), k, rtol=1e-9)
    np.testing.assert_allclose(found, bisected(scores, k, alpha), atol=1e-8)


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4, 1e8])
def test_sums_to_k_in_float32_however_large_the_scores(scale: float) -> None:
    scores = (scale * torch.randn(50, 200, generator=torch.Generator().manual_seed(1))) + scale
    torch.testing.assert_close(probabilities(scores, 5.0).sum(dim=1), torch.full((50,), 5.0), rtol=1e-4, atol=0)


def test_left_out_labels_have_no_part() -> None:
    scores = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    masked = torch.cat([scores[:, :6], torch.full((4, 3), -torch.inf, dtype=torch.float64), scores[:, 6:]], dim=1)
    found = probabilities(masked, 5.0)
    assert (found[:, 6:9] == 0).all()
    torch.testing.assert_close(torch.cat([found[:, :6], found[:, 9:]], dim=1), probabilities(scores, 5.0))


@pytest.mark.parametrize("k", [3.0, 2.9, 4.0, 100.0])
def test_k_of_the_whole_pool_and_more_leaves_half_a_label_out(k: float) -> None:
    scores = torch.tensor([[3.0, -1.0, 0.5, -torch.inf], [0.0, -torch.inf, -torch.inf, -torch.inf]])
    found = probabilities(scores, k)
    torch.testing.assert_close(found.sum(dim=1), torch.tensor([2.5, 0.5]))
    assert found[0, 1] == found[0, :3].min()


def test_jacobian_equals_finite_differences_and_its_rows_sum_to_zero() -> None:
    scores = torch.randn(1, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def row(values: Tensor) -> Tensor:
        return probabilities(values[None], 3.0)[0]

    jacobian: Tensor = torch.autograd.functional.jacobian(row, scores[0])  # type: ignore[no-untyped-call]
    step = 1e-5
    for column in range(11):
        change = torch.zeros(11, dtype=torch.float64)
        change[column] = step
        slope = (row(scores[0] + change) - row(scores[0] - change)) / (2 * step)
        torch.testing.assert_close(jacobian[:, column], slope, rtol=0, atol=1e-8)
    torch.testing.assert_close(jacobian.sum(dim=1), torch.zeros(11, dtype=torch.float64))
    torch.testing.assert_close(jacobian.sum(dim=0), torch.zeros(11, dtype=torch.float64))


def test_gradcheck() -> None:
    scores = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    for k in (0.5, 2.0, 4.3, 9.0):
        assert torch.autograd.gradcheck(lambda values, k=k: probabilities(values, k), (scores,))


def test_gradient_is_finite_where_every_probability_is_0_or_1() -> None:
    scores = torch.tensor([[3e4, 2e4, 1e4, 0.0], [1e4, 1e4, 0.0, 0.0]]).requires_grad_()
    rows, columns = torch.tensor([0, 1]), torch.tensor([2, 2])
    # The third has no place among two: its gradient is that of -alpha (s + t), t held by the two beside the border.
    (-torch.nn.functional.logsigmoid(top_k_logits(scores, 2.0)(rows, columns))).sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad[0], torch.tensor([0.0, 1.0, -1.0, 0.0]))
    torch.testing.assert_close(scores.grad[1], torch.tensor([0.5, 0.5, -1.5, 0.5]))


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("k", [5.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_takes_few_passes(scale: float, k: float, alpha: float) -> None:
    scores = scale * torch.randn(64, 4096, generator=torch.Generator().manual_seed(5))
    taken = passes(scores, k, alpha)
    assert taken.mean() <= 4
    assert taken.max() <= 7


def test_a_root_at_the_end_of_the_bracket_takes_few_passes() -> None:
    """Six equal scores and k = 5: the upper end is the answer."""
    assert passes(torch.full((1, 6), 3.0), 5.0, 2.0).max() <= 6
    assert passes(torch.full((1, 1), 3.0), 0.5, 2.0).max() <= 6


def test_rows_with_nothing_take_no_pass_and_hard_ones_end() -> None:
    scores = torch.full((3, 1000), -20.0)
    scores[0] = -torch.inf
    scores[1, :3] = torch.tensor([20.0, 10.0, 0.0])
    taken = passes(scores, 5.0, 2.0)
    assert taken[0] == 0
    assert taken.max() <= 8
    assert math.isfinite(float(probabilities(scores, 5.0)[1:].sum()))


def test_empty_batches_and_pools() -> None:
    for shape in ((0, 5), (0, 0), (2, 0)):
        assert probabilities(torch.zeros(shape), 3.0).shape == shape
