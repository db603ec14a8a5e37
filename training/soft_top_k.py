"""Soft top-k: sigmoids of shifted scores that sum to k; the shift by Newton, its gradient by implicit function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from index.errors import InputError

# Of log Σp against log k, at which a row takes its last Newton step and stops. The step squares what is left.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
_MOST_PASSES = 50
# Part of a label that stays out of the k best where k is the whole pool or more, so that the shift stays finite.
_LEFT_OUT = 0.5

Sums = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Row numbers (r,) and their shifts (r,) to Σp and Σp(1 − p), each (r,): one pass over the rows' scores."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where each row's shift lies, all (rows,): p_i = sigmoid(alpha · (s_i − centre + shift)) sum to k.

    Shifts are relative to `centre`, midway between the k-th and the (k+1)-th score: s − centre is exact where it
    matters, s + t would lose the digits that decide when scores are huge. filled: rows that have any label at all.
    """

    k: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor
    filled: Tensor

    @classmethod
    def of(cls, best: Tensor, counts: Tensor, k: float, alpha: float) -> Self:
        """From the `depth(k, pool)` highest scores (rows, depth), descending, and the labels left in, (rows,).

        k is clamped to half a label less than a row has. The ends follow from Σp ≤ i + (n − i)·p of the (i+1)-th best
        and Σp ≥ j · p of the j-th best, with i and j the whole numbers just below and just above k.
        """
        filled = counts > 0
        n = counts.clamp(min=1).to(best.dtype)
        clamped = torch.minimum(torch.full_like(n, k), n - _LEFT_OUT)
        above, below = clamped.ceil(), clamped.floor() + 1  # 1-based ranks: the k-th, the (k+1)-th
        inside = best.gather(1, above.long()[:, None] - 1)[:, 0].masked_fill(~filled, 0)
        outside = best.gather(1, below.long()[:, None] - 1)[:, 0].masked_fill(~filled, 0)
        centre = inside + (outside - inside) / 2
        low = torch.log((clamped - above + 1) / (n - clamped)) / alpha + centre - inside
        high = torch.log(clamped / (below - clamped)) / alpha + centre - outside
        return cls(clamped, centre, low, high, filled)


def check(k: float, alpha: float) -> None:
    """Raises InputError unless k and alpha are positive numbers."""
    for name, value in (("k", k), ("alpha", alpha)):
        if not 0 < value < float("inf"):
            raise InputError(f"soft top-k: {name} must be above 0 and finite, is {value}")


def depth(k: float, pool: int) -> int:
    """How many of the highest scores the bracket needs."""
    return min(int(k) + 1, pool)


def solve(sums: Sums, bracket: Bracket, alpha: float) -> Tensor:
    """The shifts (rows,), by Newton on log Σp − log k from the centre, safeguarded by bisection of the bracket.

    log Σp is nearly linear in the shift while p is small, which is why 2 to 4 passes do where bisection of Σp takes 20.
    Each row stops on its own, and only rows that have not are handed to `sums`.
    """
    low, high = bracket.low.clone(), bracket.high.clone()
    shift = torch.zeros_like(low).clamp(low, high)
    tolerance = _TOLERANCE[shift.dtype]
    rows = bracket.filled.nonzero()[:, 0]
    for _ in range(_MOST_PASSES):
        if not len(rows):
            break
        now = shift[rows]
        total, spread = sums(rows, now)
        gap = torch.log(total / bracket.k[rows])
        low[rows] = torch.where(gap < 0, now, low[rows])
        high[rows] = torch.where(gap > 0, now, high[rows])
        newton = now - gap * total / (alpha * spread)
        good = (newton >= low[rows]) & (newton <= high[rows])
        done = gap.abs() < tolerance
        new = torch.where(good, newton, torch.where(done, now, (low[rows] + high[rows]) / 2))
        shift[rows] = new
        rows = rows[~(done | (new == now))]
    return shift


def log_spread(logits: Tensor) -> Tensor:
    """log p(1 − p) of p = sigmoid(logits), in place of the logits.

    It still tells labels apart where p itself is 0 or 1 to the last digit.
    """
    less = logits.abs_().neg_()
    return less.sub_(less.exp().log1p_(), alpha=2)


def top_k_logits(scores: Tensor, k: float, alpha: float = 2.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Solve for each row; what returns maps places (rows, columns) to their logits alpha · (s + t), in the graph.

    scores: (rows, pool) float32 or float64, −inf leaves a label out. The sigmoids of a row's logits sum to k, clamped
    to half a label less than the row has: a pool of n ≤ k labels then still tells its last from the others, and a pool
    of one has p = ½. Gradient: dt/ds_j = −v_j / Σv, v = p(1 − p). Raises InputError for k or alpha not positive.
    """
    check(k, alpha)
    if not scores.numel():
        return lambda rows, columns: alpha * scores[rows, columns]
    with torch.no_grad():
        best = scores.topk(depth(k, scores.shape[1]), dim=1).values
        bracket = Bracket.of(best, (scores > -torch.inf).sum(dim=1), k, alpha)
    shift: Tensor = _Shift.apply(scores, bracket, alpha)  # type: ignore[no-untyped-call]
    return lambda rows, columns: alpha * ((scores[rows, columns] - bracket.centre[rows]) + shift[rows])


class _Shift(torch.autograd.Function):
    """The solved shift of each row of a score matrix, (rows,). The centre is a constant: only the sum matters."""

    @staticmethod
    def forward(context: Any, scores: Tensor, bracket: Bracket, alpha: float) -> Tensor:
        def sums(rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
            left = scores if len(rows) == len(scores) else scores[rows]
            return spread_sums(left - bracket.centre[rows, None], shift, alpha)

        shift = solve(sums, bracket, alpha)
        context.save_for_backward(scores, bracket.centre, shift)
        context.alpha = alpha
        return shift

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        scores, centre, shift = context.saved_tensors
        logits = context.alpha * ((scores - centre[:, None]) + shift[:, None])
        weights = torch.softmax(log_spread(logits), dim=1).mul_(-gradient[:, None])  # (rows, pool)
        # A row of nothing but -inf has no softmax; nothing depends on its shift.
        return weights.masked_fill_((gradient == 0)[:, None], 0), None, None


def spread_sums(centred: Tensor, shift: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Σp and Σp(1 − p) over the columns of scores less their centre, (rows, columns), which are overwritten."""
    p = centred.add_(shift[:, None]).mul_(alpha).sigmoid_()
    total = p.sum(dim=1)
    return total, p.mul_(1 - p).sum(dim=1)
