"""The unified embedding: one hashed table with a learned gate per row, shared by all features and both towers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from index.bags import Bags


@dataclass(frozen=True, slots=True)
class Lookup:
    """The bags of a batch against the rows that they touch, both ways round.

    rows: (touched,) int64 table rows. inside, bag_starts, weights: EmbeddingBag input over `rows`, bag by bag.
    bags, row_starts, row_weights: the same links sorted by touched row, which makes the gradient of the rows an
    EmbeddingBag of the bags' gradients: nothing of size links x dim is ever held.
    """

    rows: Tensor
    inside: Tensor
    bag_starts: Tensor
    weights: Tensor
    bags: Tensor
    row_starts: Tensor
    row_weights: Tensor

    @classmethod
    def of(cls, bags: Bags, keep: NDArray[np.bool_] | None = None, device: torch.device | None = None) -> Lookup:
        """keep: (links,) bool, which links take part (feature dropout); None for all. device: the table's."""
        links, weights, offsets = bags.rows, bags.weights, bags.offsets
        if keep is not None:
            offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(keep)])[offsets]
            links, weights = links[keep], weights[keep]
        order = np.argsort(links, kind="stable")
        by_row = links[order]
        starts = np.flatnonzero(np.diff(by_row, prepend=-1))
        inside = np.empty(len(links), dtype=np.int64)
        inside[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(links)))
        bag_of_link = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        parts = (
            _long(by_row[starts]),
            _long(inside),
            _long(offsets[:-1]),
            torch.from_numpy(weights.copy()),
            _long(bag_of_link[order]),
            _long(starts),
            torch.from_numpy(weights[order]),
        )
        return cls(*(part.to(device) for part in parts))


def _long(values: NDArray[np.integer[Any]]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


class _BagSum(torch.autograd.Function):
    """Sum over a bag's links of weight · e^gate · row, (bags, dim)."""

    @staticmethod
    def forward(context: Any, rows: Tensor, gates: Tensor, lookup: Lookup) -> Tensor:
        gated = rows * gates.exp()[:, None]  # (touched, dim)
        context.lookup = lookup
        context.save_for_backward(gated, gates)
        return _bag_sum(gated, lookup.inside, lookup.bag_starts, lookup.weights)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        gated, gates = context.saved_tensors
        lookup = context.lookup
        gradient = _bag_sum(gradients[0].contiguous(), lookup.bags, lookup.row_starts, lookup.row_weights)
        gate_gradient = torch.linalg.vecdot(gradient, gated)
        return gradient.mul_(gates.exp()[:, None]), gate_gradient, None


def _bag_sum(table: Tensor, inside: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return functional.embedding_bag(inside, table, starts, mode="sum", per_sample_weights=weights)


class UnifiedEmbedding:
    """The table (rows, dim) and its gates (rows,), outside of autograd: only the rows that a batch touches take part.

    Method: Unified Embedding (NeurIPS 2023), with one table for all features; the gate is the decoupled attention of
    one scalar per row, here as a factor e^gate of the row.
    """

    def __init__(
        self, rows: int, dim: int, generator: torch.Generator | None, device: torch.device | None = None
    ) -> None:
        """generator: of the table's first values; None for zeros."""
        self.table = torch.zeros(rows, dim, device=device)
        if generator is not None:
            self.table.uniform_(-0.05, 0.05, generator=generator)
        self.gates = torch.zeros(rows, device=device)

    def touched(self, lookup: Lookup) -> tuple[Tensor, Tensor]:
        """Copies of the touched rows (touched, dim) and gates (touched,), as leaves that collect gradients."""
        return self.table[lookup.rows].requires_grad_(), self.gates[lookup.rows].requires_grad_()

    def pooled(self, lookup: Lookup, rows: Tensor, gates: Tensor) -> Tensor:
        """Gated weighted sums of the bags' rows, (bags, dim); an empty bag is zero."""
        pooled: Tensor = _BagSum.apply(rows, gates, lookup)  # type: ignore[no-untyped-call]
        return pooled

    def folded(self) -> Tensor:
        """The table with the gates multiplied in, (rows, dim): all that is needed once training is over."""
        return self.table * self.gates.exp()[:, None]
