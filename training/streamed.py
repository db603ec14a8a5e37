"""Losses over very many labels, chunk by chunk: the scores of all queries and labels are never held at once.

Forward keeps a few numbers a query; backward computes each chunk's scores again. Memory beside the two matrices of
vectors and their gradients is a few times queries x chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from index.errors import InputError
from training.losses import NamedLoss, bare_term, decoupled_term, mean_over_positives
from training.soft_top_k import Bracket, check, depth, log_spread, solve, spread_sums

CHUNK = 8192
STREAMED = ("decoupled_softmax", "soft_top_k", "softmax", "softmax_without_positives", "sigmoid")
_HALF = (torch.bfloat16, torch.float16)

Pairs = tuple[Tensor, Tensor]
"""Query numbers and label numbers, both (pairs,) int64; each pair once, in any order."""


def streamed_logsumexp(
    queries: Tensor,
    labels: Tensor,
    left_out: Pairs,
    scale: float,
    log_weight: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """logsumexp over labels of scale · <query, label> + log_weight, (queries,), without the pairs left out.

    queries: (queries, dim), labels: (labels, dim), of one float type. Half precision is multiplied as it is and
    accumulated in float32; the answer is float32 or float64. log_weight: (labels,), a constant added to a label's
    score, for example the log of how many labels a sampled one stands for. A query with nothing left has −inf.
    Gradients go to queries, and to labels where they require them. Raises InputError for arguments that do not fit.
    """
    sweep = Sweep.of(queries, labels, left_out, scale, chunk, leave_out=True, log_weight=log_weight)
    total, _ = _LogSumExp.apply(queries, labels, sweep)  # type: ignore[no-untyped-call]
    return total  # type: ignore[no-any-return]


def streamed_loss(
    loss: NamedLoss,
    queries: Tensor,
    labels: Tensor,
    positives: Pairs,
    scale: float,
    log_weight: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """The loss of `scale · queries @ labels.T`, equal to `loss(scores, positive)` to rounding; a scalar.

    Arguments are as in `streamed_logsumexp`; log_weight counts in the denominator only, and for softmax losses only.
    Raises InputError for a loss that is not in STREAMED.
    """
    if loss.name not in STREAMED:
        raise InputError(f"loss: {loss.name} cannot be streamed; choose one of {', '.join(STREAMED)}")
    if log_weight is not None and loss.name in ("soft_top_k", "sigmoid"):
        raise InputError(f"loss: {loss.name} takes no label weights; choose a softmax loss")
    leave_out = loss.name not in ("softmax", "soft_top_k")
    sweep = Sweep.of(queries, labels, positives, scale, chunk, leave_out=leave_out, log_weight=log_weight)
    rows = sweep.rows
    if loss.name == "soft_top_k":
        logits = _soft_top_k_logits(loss, queries, labels, sweep)
        return mean_over_positives(-functional.logsigmoid(logits), rows, len(queries))
    if loss.name == "sigmoid":
        return _sigmoid(loss, queries, labels, sweep)
    total, scores = _LogSumExp.apply(queries, labels, sweep)  # type: ignore[no-untyped-call]
    threshold = total[rows]
    if loss.name == "decoupled_softmax":
        return mean_over_positives(decoupled_term(threshold, scores), rows, len(queries))
    if loss.name == "softmax":
        return mean_over_positives(threshold - scores, rows, len(queries))
    return mean_over_positives(bare_term(threshold, scores), rows, len(queries))


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk of labels: which, and which pairs fall into it, as a slice of all pairs and as places in its scores."""

    labels: slice
    pairs: slice
    places: tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Passes over the scores of queries and labels, part by part. Outside of autograd.

    rows, columns: the pairs, sorted by column. bounds: where each part's pairs begin, then their number. leave_out:
    whether pairs count as −inf once they have been read.
    """

    queries: Tensor
    labels: Tensor
    rows: Tensor
    columns: Tensor
    bounds: list[int]
    scale: float
    chunk: int
    leave_out: bool
    log_weight: Tensor | None

    @classmethod
    def of(
        cls,
        queries: Tensor,
        labels: Tensor,
        pairs: Pairs,
        scale: float,
        chunk: int,
        *,
        leave_out: bool,
        log_weight: Tensor | None,
    ) -> Self:
        """Check that everything fits, and sort the pairs."""
        _check(queries, labels, chunk, log_weight)
        order = pairs[1].argsort(stable=True)
        rows, columns = pairs[0][order], pairs[1][order]
        starts = torch.arange(0, len(labels), chunk, device=columns.device)
        ends = torch.tensor([0, len(labels)], device=columns.device)
        *bounds, first, last = torch.searchsorted(columns, torch.cat([starts, ends])).tolist()
        if (first, last) != (0, len(columns)):
            raise InputError(f"pairs: label numbers must be 0 to {len(labels) - 1}, are {columns[0]} to {columns[-1]}")
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(queries):
            raise InputError(f"pairs: query numbers must be 0 to {len(queries) - 1}, are {rows.min()} to {rows.max()}")
        return cls(
            queries.detach(), labels.detach(), rows, columns, [*bounds, last], scale, chunk, leave_out, log_weight
        )

    @property
    def wide(self) -> torch.dtype:
        """What is accumulated in."""
        return torch.float64 if self.queries.dtype == torch.float64 else torch.float32

    def only(self, rows: Tensor) -> Sweep:
        """The same pass for some queries, without pairs."""
        none = rows[:0]
        bounds = [0] * len(self.bounds)
        return replace(self, queries=self.queries[rows], rows=none, columns=none, bounds=bounds)

    def parts(self) -> Iterator[Part]:
        for number, start in enumerate(range(0, len(self.labels), self.chunk)):
            pairs = slice(self.bounds[number], self.bounds[number + 1])
            stop = min(start + self.chunk, len(self.labels))
            yield Part(slice(start, stop), pairs, (self.rows[pairs], self.columns[pairs] - start))

    def scores(self, part: Part, read: Tensor | None = None) -> Tensor:
        """(queries, chunk) in the wide type; the pairs' own scores go into `read`, (pairs,), where it is given."""
        scores = _product(self.queries, self.labels[part.labels].T).mul_(self.scale)
        if read is not None:
            read[part.pairs] = scores[part.places]
        if self.log_weight is not None:
            scores.add_(self.log_weight[part.labels])
        if self.leave_out:
            scores[part.places] = -torch.inf
        return scores

    def logsumexp(self, of: Callable[[Tensor], Tensor] = lambda scores: scores, read: Tensor | None = None) -> Tensor:
        """Over all labels of some function of the scores, (queries,)."""
        total = self.queries.new_full((len(self.queries),), -torch.inf, dtype=self.wide)
        for part in self.parts():
            values = of(self.scores(part, read))
            top = values.amax(dim=1)
            top.masked_fill_(top == -torch.inf, 0)
            # In place: torch.logsumexp would hold the chunk twice.
            part_total = values.sub_(top[:, None]).exp_().sum(dim=1).log_().add_(top)
            total = torch.logaddexp(total, part_total)
        return total

    def best(self, count: int, read: Tensor | None = None) -> Tensor:
        """The highest scores of each query, (queries, count), descending."""
        best = self.queries.new_empty((len(self.queries), 0), dtype=self.wide)
        for part in self.parts():
            scores = self.scores(part, read)
            found = scores.topk(min(count, scores.shape[1]), dim=1).values
            together = torch.cat([best, found], dim=1)
            best = together.topk(min(count, together.shape[1]), dim=1).values
        return best

    def empty(self) -> Tensor:
        """Room for the pairs' scores, (pairs,)."""
        return self.queries.new_empty((len(self.rows),), dtype=self.wide)

    def gradients(
        self, slope: Callable[[Tensor], Tensor], pairs: Tensor, with_labels: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Of queries and labels, from the slope of the loss by each score, which may overwrite the scores it is given.

        pairs: the loss' further slope by each pair's own score, (pairs,).
        """
        of_queries = torch.zeros_like(self.queries, dtype=self.wide)
        of_labels = torch.empty_like(self.labels) if with_labels else None
        for part in self.parts():
            slopes = slope(self.scores(part))
            slopes.index_put_(part.places, pairs[part.pairs], accumulate=True)
            slopes.mul_(self.scale)
            of_queries += _product(slopes, self.labels[part.labels])
            if of_labels is not None:
                of_labels[part.labels] = _product(slopes.T, self.queries)
        return of_queries.to(self.queries.dtype), of_labels


class _LogSumExp(torch.autograd.Function):
    """Z (queries,) and the scores of the pairs (pairs,). d Z / d s = e^(s − Z)."""

    @staticmethod
    def forward(context: Any, queries: Tensor, labels: Tensor, sweep: Sweep) -> tuple[Tensor, Tensor]:
        read = sweep.empty()
        total = sweep.logsumexp(read=read)
        # Saved although the sweep holds them: torch then notices when they were overwritten before backward.
        context.save_for_backward(queries, labels, total)
        context.sweep = sweep
        return total, read

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor | None, None]:
        total = context.saved_tensors[2]
        finite = total.masked_fill(total == -torch.inf, 0)[:, None]

        def slope(scores: Tensor) -> Tensor:
            return scores.sub_(finite).exp_().mul_(gradient[:, None])

        return *context.sweep.gradients(slope, pairs, context.needs_input_grad[1]), None


class _Shift(torch.autograd.Function):
    """Soft top-k's shift and centre (queries,), and the scores of the pairs (pairs,). The centre is a constant."""

    @staticmethod
    def forward(
        context: Any, queries: Tensor, labels: Tensor, sweep: Sweep, k: float, alpha: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        read = sweep.empty()
        best = sweep.best(depth(k, len(labels)), read)
        bracket = Bracket.of(best, torch.full((len(queries),), len(labels), device=queries.device), k, alpha)

        def sums(rows: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
            some, centre = sweep.only(rows), bracket.centre[rows, None]
            total, spread = torch.zeros_like(shift), torch.zeros_like(shift)
            for part in some.parts():
                more = spread_sums(some.scores(part).sub_(centre), shift, alpha)
                total += more[0]
                spread += more[1]
            return total, spread

        shift = solve(sums, bracket, alpha)
        context.save_for_backward(queries, labels, bracket.centre, shift)
        context.sweep, context.alpha = sweep, alpha
        context.mark_non_differentiable(bracket.centre)
        return shift, bracket.centre, read

    @staticmethod
    @once_differentiable
    def backward(
        context: Any, gradient: Tensor, _: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        centre, shift = (value[:, None] for value in context.saved_tensors[2:])

        def spread(scores: Tensor) -> Tensor:
            return log_spread(scores.sub_(centre).add_(shift).mul_(context.alpha))

        total = context.sweep.logsumexp(spread)[:, None]

        def slope(scores: Tensor) -> Tensor:
            return spread(scores).sub_(total).exp_().mul_(-gradient[:, None])

        return *context.sweep.gradients(slope, pairs, context.needs_input_grad[1]), None, None, None


class _SoftplusSum(torch.autograd.Function):
    """Sum over labels of softplus(factor · s + bias), (queries,), and the scores of the pairs (pairs,)."""

    @staticmethod
    def forward(
        context: Any, queries: Tensor, labels: Tensor, factor: Tensor, bias: Tensor, sweep: Sweep
    ) -> tuple[Tensor, Tensor]:
        read = sweep.empty()
        total, by_factor, by_bias = (torch.zeros(len(queries)).to(read) for _ in range(3))
        for part in sweep.parts():
            scores = sweep.scores(part, read)
            logits = factor * scores + bias
            total += functional.softplus(logits).sum(dim=1)
            slopes = logits.sigmoid_()
            by_bias += slopes.sum(dim=1)
            by_factor += slopes.mul_(scores.masked_fill_(scores == -torch.inf, 0)).sum(dim=1)
        context.save_for_backward(queries, labels, factor, bias, by_factor, by_bias)
        context.sweep = sweep
        return total, read

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, None]:
        *_, factor, bias, by_factor, by_bias = context.saved_tensors

        def slope(scores: Tensor) -> Tensor:
            return scores.mul_(factor).add_(bias).sigmoid_().mul_(factor * gradient[:, None])

        of_queries, of_labels = context.sweep.gradients(slope, pairs, context.needs_input_grad[1])
        return of_queries, of_labels, (gradient * by_factor).sum(), (gradient * by_bias).sum(), None


def _soft_top_k_logits(loss: NamedLoss, queries: Tensor, labels: Tensor, sweep: Sweep) -> Tensor:
    """alpha · (s + t) of each pair, (pairs,)."""
    check(loss.k, loss.alpha)
    if not len(labels):
        return sweep.empty()
    shift, centre, scores = _Shift.apply(queries, labels, sweep, loss.k, loss.alpha)  # type: ignore[no-untyped-call]
    logits: Tensor = loss.alpha * ((scores - centre[sweep.rows]) + shift[sweep.rows])
    return logits


def _sigmoid(loss: NamedLoss, queries: Tensor, labels: Tensor, sweep: Sweep) -> Tensor:
    assert loss.sigmoid is not None  # noqa: S101 - make_loss gives it one
    factor, bias = loss.sigmoid.scale_and_bias(sweep.empty())
    total, scores = _SoftplusSum.apply(queries, labels, factor, bias, sweep)  # type: ignore[no-untyped-call]
    with_positives = torch.bincount(sweep.rows, minlength=len(queries)) > 0
    positives = functional.softplus(-(factor * scores + bias)).sum()
    result: Tensor = (total[with_positives].sum() + positives) / max(1, len(queries))
    return result


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Matrix product in the wide type, whatever autocast says. A wide factor beside a bfloat16 one is narrowed."""
    narrow = next((value.dtype for value in (one, other) if value.dtype in _HALF), None)
    with torch.autocast(one.device.type, enabled=False):
        if narrow is None:
            return one @ other
        # float16 has too little range for slopes, and the processor has no product that narrows and accumulates wide.
        exact = narrow == torch.bfloat16 or one.dtype == other.dtype
        if one.is_cuda and exact:
            return torch.mm(one.to(narrow), other.to(narrow), out_dtype=torch.float32)
        return one.float() @ other.float()


def _check(queries: Tensor, labels: Tensor, chunk: int, log_weight: Tensor | None) -> None:
    if queries.dim() != 2 or labels.dim() != 2 or queries.shape[1] != labels.shape[1]:
        raise InputError(
            f"queries {tuple(queries.shape)} and labels {tuple(labels.shape)}: must be matrices of one width"
        )
    if queries.dtype != labels.dtype or not queries.dtype.is_floating_point:
        raise InputError(f"queries {queries.dtype} and labels {labels.dtype}: must be of one float type")
    if chunk < 1:
        raise InputError(f"chunk: must be at least 1, is {chunk}")
    if log_weight is not None and log_weight.shape != (len(labels),):
        raise InputError(f"log_weight {tuple(log_weight.shape)}: must be one number for each of {len(labels)} labels")
