"""Losses over a pool of scores and a mask of positives, and the choice among them by name.

All take scores (queries, pool), already divided by the temperature, of any float type: half precision is widened to
float32. −inf leaves a label out, be it positive or not. positive: the same shape, bool. All return a scalar: the mean
over the queries, in which one without positives counts 0. An empty batch gives 0, and gradients are always finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from index.errors import InputError
from training.soft_top_k import check, top_k_logits

# SigLIP's start: logits 10 · cosine − 10.
_START_SCALE = 10.0
_START_BIAS = -10.0


class Loss(Protocol):
    """What the trainer knows of a loss."""

    def __call__(self, scores: Tensor, positive: Tensor, random: Generator | None = None, /) -> Tensor:
        """A scalar. random: where a loss that draws takes its chance from; None for torch's own generator."""

    def parameters(self) -> list[nn.Parameter]:
        """What the loss itself learns; mostly nothing."""


def decoupled_softmax(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean over the queries of mean over their positives p of softplus(Z − s_p), Z = logsumexp over true negatives.

    Each positive competes with the query's negatives only, so no positive is ever pushed down (DEXML, ICLR 2024).
    scores: (queries, pool) float, already divided by the temperature; −inf leaves a label out. positive: the same
    shape, bool. A query without positives counts as 0; one without negatives has Z = −inf and so loss 0.
    """
    scores, positive = _prepared(scores, positive)
    rows, columns = positive.nonzero(as_tuple=True)
    threshold = _logsumexp(scores, without=positive)[rows]
    return mean_over_positives(decoupled_term(threshold, scores[rows, columns]), rows, len(scores))


def softmax(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean over positives of −log softmax over the whole pool, the query's other positives included.

    Its best is 1/m for each of m positives: one that has more is pushed down.
    """
    scores, positive = _prepared(scores, positive)
    rows, columns = positive.nonzero(as_tuple=True)
    threshold = _logsumexp(scores)[rows]
    return mean_over_positives(threshold - scores[rows, columns], rows, len(scores))


def softmax_one_positive(scores: Tensor, positive: Tensor, random: Generator | None = None) -> Tensor:
    """The softmax loss of one positive a query, drawn uniformly; the others stay in the denominator, as in DEXML's
    released settings. In expectation it equals `softmax`.
    """
    scores, positive = _prepared(scores, positive)
    counts = positive.sum(dim=1)
    rows = counts.nonzero()[:, 0]
    device = scores.device if random is None else random.device
    chance = torch.rand(len(scores), generator=random, device=device, dtype=torch.float64).to(scores.device)[rows]
    first = (counts.cumsum(0) - counts)[rows]
    drawn = first + (chance * counts[rows]).long()  # chance < 1
    columns = positive.nonzero()[drawn, 1]
    return mean_over_positives(_logsumexp(scores)[rows] - scores[rows, columns], rows, len(scores))


def softmax_without_positives(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean over positives of Z − s_p, Z = logsumexp over true negatives: not even p itself is in the denominator
    (decoupled contrastive learning, ECCV 2022). It has no lower bound. A query without negatives counts as 0.
    """
    scores, positive = _prepared(scores, positive)
    rows, columns = positive.nonzero(as_tuple=True)
    threshold = _logsumexp(scores, without=positive)[rows]
    return mean_over_positives(bare_term(threshold, scores[rows, columns]), rows, len(scores))


def soft_top_k(scores: Tensor, positive: Tensor, k: float, alpha: float = 2.0) -> Tensor:
    """Mean over positives of −log p, p_i = sigmoid(alpha · (s_i + t)), t such that p sums to k over the pool.

    The pool has k places; a positive's loss falls as it takes one from another label (DEXML, ICLR 2024, after Ahle).
    k is clamped to half a label less than a query's pool has, see `training.soft_top_k`. Raises InputError for k or
    alpha that are not positive.
    """
    scores, positive = _prepared(scores, positive)
    rows, columns = positive.nonzero(as_tuple=True)
    logits = top_k_logits(scores, k, alpha)(rows, columns)
    return mean_over_positives(-functional.logsigmoid(logits), rows, len(scores))


class SigmoidLoss(nn.Module):
    """Sum over the pool of binary cross-entropy with logits scale · s + bias, both learned (SigLIP, ICCV 2023).

    SigLIP starts with 10 · cosine − 10. Scores here are cosine / temperature, so the scale starts at 10 · temperature
    and the logits are the same: no pair is above ½ at the start, where the many negatives of a bare sigmoid of the
    scores would drown the positives.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(_START_SCALE * temperature)))
        self.bias = nn.Parameter(torch.tensor(_START_BIAS))

    def forward(self, scores: Tensor, positive: Tensor) -> Tensor:
        """The loss of a batch; the parameters follow the scores' device."""
        scores, positive = _prepared(scores, positive)
        out = scores == -torch.inf
        scale, bias = self.scale_and_bias(scores)
        logits = scale * scores.masked_fill(out, 0) + bias  # -inf · scale would leave the scale without a gradient
        losses = functional.softplus(torch.where(positive, -logits, logits)).masked_fill(out, 0)  # (queries, pool)
        return losses[positive.any(dim=1)].sum() / max(1, len(scores))

    def scale_and_bias(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The two factors on the device and in the type of `like`, in the graph."""
        return self.log_scale.exp().to(like), self.bias.to(like)


def decoupled_term(threshold: Tensor, scores: Tensor) -> Tensor:
    return functional.softplus(threshold - scores)


def bare_term(threshold: Tensor, scores: Tensor) -> Tensor:
    return torch.where(threshold > -torch.inf, threshold - scores, 0)


def mean_over_positives(losses: Tensor, rows: Tensor, queries: int) -> Tensor:
    """Mean over the queries of the mean of each one's losses. losses and the queries they belong to: (positives,)."""
    counts = torch.bincount(rows, minlength=queries)[rows]
    return (losses / counts).sum() / max(1, queries)


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """A loss chosen by name, with its settings; `sigmoid` holds what that loss learns."""

    name: str
    k: float
    alpha: float
    sigmoid: SigmoidLoss | None

    def __call__(self, scores: Tensor, positive: Tensor, random: Generator | None = None, /) -> Tensor:
        return _BY_NAME[self.name](self, scores, positive, random)

    def parameters(self) -> list[nn.Parameter]:
        return [] if self.sigmoid is None else list(self.sigmoid.parameters())


def _by_sigmoid(loss: NamedLoss, scores: Tensor, positive: Tensor, random: Generator | None) -> Tensor:
    assert loss.sigmoid is not None  # noqa: S101 - make_loss gives it one
    result: Tensor = loss.sigmoid(scores, positive)
    return result


_BY_NAME: dict[str, Callable[[NamedLoss, Tensor, Tensor, Generator | None], Tensor]] = {
    "decoupled_softmax": lambda loss, scores, positive, random: decoupled_softmax(scores, positive),
    "soft_top_k": lambda loss, scores, positive, random: soft_top_k(scores, positive, loss.k, loss.alpha),
    "softmax": lambda loss, scores, positive, random: softmax(scores, positive),
    "softmax_one_positive": lambda loss, scores, positive, random: softmax_one_positive(scores, positive, random),
    "softmax_without_positives": lambda loss, scores, positive, random: softmax_without_positives(scores, positive),
    "sigmoid": _by_sigmoid,
}
LOSSES = tuple(_BY_NAME)


def make_loss(name: str, *, k: float = 5.0, alpha: float = 2.0, temperature: float = 0.05) -> NamedLoss:
    """The loss of this name. k and alpha: soft top-k's. temperature, by which scores are divided: for sigmoid's start.

    Raises InputError for another name, naming the choices, and for k or alpha that are not positive.
    """
    if name not in _BY_NAME:
        raise InputError(f"loss: there is no {name!r}; choose one of {', '.join(LOSSES)}")
    check(k, alpha)
    return NamedLoss(name, k, alpha, SigmoidLoss(temperature) if name == "sigmoid" else None)


def _prepared(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Scores in float32 or float64, and the positives that are left in."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    # NaN stays in: a loss that is no number has to be seen.
    return wide, positive & (scores != -torch.inf)


def _logsumexp(scores: Tensor, without: Tensor | None = None) -> Tensor:
    """logsumexp of each row without some labels, (queries,); −inf, with gradient 0, where nothing is left."""
    # Filling what is -inf already looks idle, but torch's gradient of a row of nothing else is NaN: filling stops it.
    out = scores == -torch.inf if without is None else (scores == -torch.inf) | without
    return torch.logsumexp(scores.masked_fill(out, -torch.inf), dim=1)
