"""The decoupled softmax against a float64 loop and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.losses import decoupled_softmax


def slow_loss(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    total = 0.0
    for row, mask in zip(scores, positive, strict=True):
        negatives = [score for score in row[~mask] if score > -math.inf]
        if not mask.any() or not negatives:
            continue
        top = max(negatives)
        threshold = top + math.log(sum(math.exp(score - top) for score in negatives))
        losses = [max(0.0, threshold - s) + math.log1p(math.exp(-abs(threshold - s))) for s in row[mask]]
        total += sum(losses) / len(losses)
    return total / max(1, len(scores))


def example(seed: int, scale: float = 5.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    positive = random.random((6, 9)) < 0.3
    positive[0] = False
    positive[1] = True
    return scale * random.standard_normal((6, 9)), positive


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4])
def test_equals_the_loop(seed: int, scale: float) -> None:
    scores, positive = example(seed, scale)
    scores[2, 3] = -math.inf
    positive[2, 3] = False
    loss = decoupled_softmax(torch.from_numpy(scores), torch.from_numpy(positive))
    assert float(loss) == pytest.approx(slow_loss(scores, positive), rel=1e-10)


def test_gradient_equals_finite_differences_and_pushes_no_positive_down() -> None:
    scores, positive = example(7, 2.0)
    leaf = torch.from_numpy(scores.copy()).requires_grad_()
    decoupled_softmax(leaf, torch.from_numpy(positive)).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    gradient = leaf.grad.numpy()
    step = 1e-6
    for row, column in np.ndindex(*scores.shape):
        up, down = scores.copy(), scores.copy()
        up[row, column] += step
        down[row, column] -= step
        slope = (slow_loss(up, positive) - slow_loss(down, positive)) / (2 * step)
        assert gradient[row, column] == pytest.approx(slope, abs=1e-7)
    assert (gradient[positive] <= 0).all()
    assert (gradient[~positive] >= 0).all()


def test_rows_without_positives_or_negatives_and_single_labels_are_finite() -> None:
    for shape in ((3, 1), (1, 1), (0, 4)):
        for value in (True, False):
            leaf = torch.zeros(shape).requires_grad_()
            loss = decoupled_softmax(leaf, torch.full(shape, value))
            assert float(loss.detach()) == 0.0
            loss.backward()  # type: ignore[no-untyped-call]
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()
