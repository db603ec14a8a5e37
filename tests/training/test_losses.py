"""Every loss against a float64 loop, its gradient against finite differences, and the edges where they break."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.errors import InputError
from training.losses import (
    LOSSES,
    SigmoidLoss,
    decoupled_softmax,
    make_loss,
    soft_top_k,
    softmax,
    softmax_one_positive,
    softmax_without_positives,
)

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


def log1pexp(x: float) -> float:
    return max(0.0, x) + math.log1p(math.exp(-abs(x)))


def logsumexp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def slow_shift(row: list[float], k: float, alpha: float) -> float:
    """By bisection of the sum of 1 / (1 + e^(-alpha (s + t))) = k.

    For a whole k the two sides are what the k best lack of 1 and what the others have, as logarithms: where scores lie
    far apart, the sum itself is k to the last digit over a wide stretch.
    """
    k = min(k, len(row) - 0.5)
    ranked = sorted(row, reverse=True)
    low, high = -max(row) - 100, -min(row) + 100
    for _ in range(200):
        middle = (low + high) / 2
        logits = [alpha * (value + middle) for value in ranked]
        if k == int(k):
            lacking = logsumexp([-log1pexp(x) for x in logits[: int(k)]])
            less = logsumexp([-log1pexp(-x) for x in logits[int(k) :]]) < lacking
        else:
            less = sum(math.exp(-log1pexp(-x)) for x in logits) < k
        low, high = (middle, high) if less else (low, middle)
    return (low + high) / 2


def row_loss(name: str, row: Scores, positive: Mask) -> float:
    """One query's loss, by its definition."""
    left = row > -math.inf
    positives, negatives = row[left & positive].tolist(), row[left & ~positive].tolist()
    if not positives:
        return 0.0
    if name == "sigmoid":  # as it starts at temperature 0.05
        logits = [0.5 * s - 10 for s in positives], [0.5 * s - 10 for s in negatives]
        return sum(log1pexp(-x) for x in logits[0]) + sum(log1pexp(x) for x in logits[1])
    if name == "softmax":
        z = logsumexp(positives + negatives)
        return float(np.mean([z - s for s in positives]))
    if name == "soft_top_k":
        t = slow_shift(positives + negatives, 3.0, 2.0)
        return float(np.mean([log1pexp(-2 * (s + t)) for s in positives]))
    if not negatives:
        return 0.0
    z = logsumexp(negatives)
    terms = [log1pexp(z - s) if name == "decoupled_softmax" else z - s for s in positives]
    return float(np.mean(terms))


def slow_loss(name: str, scores: Scores, positive: Mask) -> float:
    return sum(row_loss(name, row, mask) for row, mask in zip(scores, positive, strict=True)) / max(1, len(scores))


def example(seed: int, scale: float = 5.0) -> tuple[Scores, Mask]:
    """Rows at random, one without positives, one of positives only, one with labels left out, one with none left."""
    random = np.random.default_rng(seed)
    positive = random.random((7, 9)) < 0.3
    positive[0] = False
    positive[1] = True
    positive[2, :4] = [True, True, False, False]
    scores = scale * random.standard_normal((7, 9))
    scores[2, 1:3] = -math.inf
    scores[3] = -math.inf
    positive[4] = [True, *[False] * 8]
    return scores, positive


SURE = [name for name in LOSSES if name != "softmax_one_positive"]


def compute(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    loss = make_loss(name, k=3.0)
    for parameter in loss.parameters():
        parameter.requires_grad_(False)
    return loss


def gradient_of(name: str, scores: Tensor, positive: Tensor) -> tuple[float, Tensor]:
    leaf = scores.clone().requires_grad_()
    loss = compute(name)(leaf, positive)
    loss.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return float(loss.detach()), leaf.grad


@pytest.mark.parametrize("name", SURE)
@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4])
def test_equals_the_loop(name: str, scale: float) -> None:
    for seed in range(4):
        scores, positive = example(seed, scale)
        loss = compute(name)(torch.from_numpy(scores), torch.from_numpy(positive))
        # torch's softplus is linear above 20, and the start of SigmoidLoss is kept in float32.
        assert float(loss) == pytest.approx(slow_loss(name, scores, positive), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", SURE)
def test_gradient_equals_finite_differences(name: str) -> None:
    scores, positive = example(7, 2.0)
    gradient = gradient_of(name, torch.from_numpy(scores), torch.from_numpy(positive))[1].numpy()
    step = 1e-5
    for row, column in np.ndindex(*scores.shape):
        up, down = scores.copy(), scores.copy()
        up[row, column] += step
        down[row, column] -= step
        slope = (slow_loss(name, up, positive) - slow_loss(name, down, positive)) / (2 * step)
        assert gradient[row, column] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("name", SURE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_narrower_types_are_computed_in_float32(name: str, dtype: torch.dtype, scale: float) -> None:
    scores, positive = example(3, scale)
    narrow = torch.from_numpy(scores).to(dtype)
    loss, gradient = gradient_of(name, narrow, torch.from_numpy(positive))
    wide, exact = gradient_of(name, narrow.double(), torch.from_numpy(positive))
    assert loss == pytest.approx(wide, rel=1e-5, abs=1e-5)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-2, atol=1e-3)
    assert compute(name)(narrow, torch.from_numpy(positive)).dtype == torch.float32


@pytest.mark.parametrize("name", SURE)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite_and_zero_where_labels_are_left_out(name: str, scale: float) -> None:
    for dtype in (torch.float32, torch.float64):
        scores, positive = example(11, scale)
        gradient = gradient_of(name, torch.from_numpy(scores).to(dtype), torch.from_numpy(positive))[1]
        assert torch.isfinite(gradient).all()
        assert (gradient[torch.from_numpy(scores == -math.inf)] == 0).all()
        assert (gradient[0] == 0).all()


def test_decoupled_pushes_no_positive_down_and_no_negative_up() -> None:
    random = np.random.default_rng(5)
    for _ in range(200):
        shape = (int(random.integers(1, 6)), int(random.integers(1, 12)))
        scores = torch.from_numpy(10.0 ** random.uniform(-1, 4) * random.standard_normal(shape)).float()
        positive = torch.from_numpy(random.random(shape) < random.random())
        gradient = gradient_of("decoupled_softmax", scores, positive)[1]
        assert (gradient[positive] <= 0).all()
        assert (gradient[~positive] >= 0).all()


def test_softmax_pushes_an_easy_positive_down() -> None:
    scores, positive = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[True, True, False]])
    assert gradient_of("softmax", scores, positive)[1][0, 0] > 0
    assert gradient_of("decoupled_softmax", scores, positive)[1][0, 0] < 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(3, 1), (1, 1), (0, 4), (0, 0), (2, 0)])
@pytest.mark.parametrize("value", [True, False])
def test_single_labels_and_empty_batches_are_finite(name: str, shape: tuple[int, int], value: bool) -> None:
    loss, gradient = gradient_of(name, torch.zeros(shape), torch.full(shape, value))
    assert torch.isfinite(gradient).all()
    if not value or 0 in shape or name in ("softmax", "decoupled_softmax", "softmax_without_positives"):
        assert loss == 0.0
        assert (gradient == 0).all()
    if value and 0 not in shape and name == "soft_top_k":
        assert loss == pytest.approx(math.log(2))  # half of the only label is left out


def test_one_positive_is_drawn_uniformly_with_the_others_in_the_denominator() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 0.5], [0.3, -1.0, 2.0, 0.0], [4.0, 4.0, 4.0, 4.0]], dtype=torch.float64)
    positive = torch.tensor([[True, True, False, True], [False, True, False, False], [False] * 4])
    shares = torch.log_softmax(scores, dim=1)
    certain = -float(shares[1, 1])
    possible = [(-float(shares[0, column]) + certain) / 3 for column in (0, 1, 3)]
    random = torch.Generator().manual_seed(0)
    drawn = [float(softmax_one_positive(scores, positive, random)) for _ in range(3000)]
    counts = [sum(abs(value - each) < 1e-9 for value in drawn) for each in possible]
    assert sum(counts) == 3000
    assert min(counts) > 900
    assert np.mean(possible) == pytest.approx(float(softmax(scores, positive)))
    again = torch.Generator().manual_seed(0)
    assert [float(softmax_one_positive(scores, positive, again)) for _ in range(20)] == drawn[:20]
    assert float(softmax_one_positive(scores, positive)) in [pytest.approx(value) for value in possible]


def test_one_positive_never_draws_one_that_is_left_out() -> None:
    scores = torch.tensor([[-math.inf, 1.0, 0.0]])
    positive = torch.tensor([[True, True, False]])
    for seed in range(20):
        loss = softmax_one_positive(scores, positive, torch.Generator().manual_seed(seed))
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))


def test_sigmoid_starts_at_siglip_and_learns_scale_and_bias() -> None:
    loss = SigmoidLoss(temperature=0.1)
    cosines = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    positive = torch.tensor([[True, False, False]])
    value = loss(cosines / 0.1, positive)
    assert float(value.detach()) == pytest.approx(log1pexp(0) + log1pexp(-10) + log1pexp(-20), rel=1e-5)
    value.backward()
    # d/dx softplus(-x) = -sigmoid(-x), d/dx softplus(x) = sigmoid(x), at x = 10 cos - 10
    by_logit = [-0.5, 1 / (1 + math.exp(10)), 1 / (1 + math.exp(20))]
    assert float(loss.bias.grad) == pytest.approx(sum(by_logit), rel=1e-5)  # type: ignore[arg-type]
    by_scale = sum(slope * 10 * cosine for slope, cosine in zip(by_logit, (1.0, 0.0, -1.0), strict=True))
    assert float(loss.log_scale.grad) == pytest.approx(by_scale, rel=1e-5)  # type: ignore[arg-type]


def test_sigmoid_has_finite_parameter_gradients_where_labels_are_left_out() -> None:
    loss = make_loss("sigmoid")
    scores, positive = example(2)
    loss(torch.from_numpy(scores), torch.from_numpy(positive)).backward()  # type: ignore[no-untyped-call]
    assert len(loss.parameters()) == 2
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad)


def test_losses_by_name_are_the_functions() -> None:
    scores, positive = (torch.from_numpy(value) for value in example(1))
    assert make_loss("decoupled_softmax")(scores, positive) == decoupled_softmax(scores, positive)
    assert make_loss("softmax")(scores, positive) == softmax(scores, positive)
    assert make_loss("softmax_without_positives")(scores, positive) == softmax_without_positives(scores, positive)
    assert make_loss("soft_top_k", k=2.5, alpha=1.0)(scores, positive) == soft_top_k(scores, positive, 2.5, 1.0)
    assert make_loss("soft_top_k", k=2.5, alpha=1.0)(scores, positive) != soft_top_k(scores, positive, 5.0, 1.0)
    seeds = [torch.Generator().manual_seed(4) for _ in range(2)]
    one = make_loss("softmax_one_positive")(scores, positive, seeds[0])
    assert one == softmax_one_positive(scores, positive, seeds[1])
    assert [make_loss(name).parameters() for name in SURE if name != "sigmoid"] == [[]] * 4


@pytest.mark.parametrize("name", ["", "Softmax", "soft-top-k", "損失"])
def test_an_unknown_name_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(InputError, match=r"decoupled_softmax, soft_top_k, softmax, .*sigmoid"):
        make_loss(name)


@pytest.mark.parametrize(("k", "alpha"), [(0.0, 2.0), (-1.0, 2.0), (math.nan, 2.0), (5.0, 0.0), (5.0, math.inf)])
def test_k_and_alpha_must_be_positive(k: float, alpha: float) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        make_loss("soft_top_k", k=k, alpha=alpha)
    with pytest.raises(InputError, match="must be above 0"):
        soft_top_k(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), k, alpha)
