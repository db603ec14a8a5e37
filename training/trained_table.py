"""The unified embedding in training: the rows that a step has touched, and the row-wise Adagrad that moves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.bags import Bags
from training.row_adagrad import RowAdagrad
from training.unified_embedding import Lookup, UnifiedEmbedding

if TYPE_CHECKING:
    from training.distributed import World


@dataclass(frozen=True, slots=True)
class _Touched:
    """The table rows of one forward call, and the leaves that collect their gradients."""

    where: Tensor
    rows: Tensor
    gates: Tensor


class TrainedTable:
    """A table and its gates with an optimiser each. Calls of `pooled` in a graph are what `update` moves rows by."""

    def __init__(self, embedding: UnifiedEmbedding, table_rate: float, gate_rate: float) -> None:
        self.embedding = embedding
        self._adagrads = {
            "table": RowAdagrad(embedding.table, table_rate),
            "gates": RowAdagrad(embedding.gates, gate_rate),
        }
        self._touched: list[_Touched] = []

    def pooled(self, bags: Bags, keep: NDArray[np.bool_] | None = None) -> Tensor:
        """Gated weighted sums of the bags' rows, (bags, dim); keep: (links,), which links take part, None for all."""
        lookup = Lookup.of(bags, keep, self.embedding.table.device)
        rows, gates = self.embedding.touched(lookup)
        if torch.is_grad_enabled():  # the gradient cache's first pass has none, and needs none
            self._touched.append(_Touched(lookup.rows, rows, gates))
        return self.embedding.pooled(lookup, rows, gates)

    def gradients(self) -> list[Tensor]:
        """Those of the touched rows, merged into one array, and of their gates."""
        self._merge()
        leaves = [leaf for touched in self._touched for leaf in (touched.rows, touched.gates)]
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients over all processes, which have touched different rows."""
        self._merge()
        table = self.embedding.table
        where = torch.empty(0, dtype=torch.int64, device=table.device)
        both = table.new_empty(0, table.shape[1] + 1)
        for touched in self._touched:  # one, or none
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - merged ones have both
            where, both = touched.where, torch.cat([touched.rows.grad, touched.gates.grad[:, None]], dim=1)
        counts = world.counts(len(where))
        parts = zip(*(torch.split(world.gather(side, counts), counts) for side in (where, both)), strict=True)
        self._touched = [_Touched(rows, _leaf_with(sums[:, :-1]), _leaf_with(sums[:, -1])) for rows, sums in parts]
        self._merge()

    def update(self, scale: float) -> None:
        """One step at `scale` times the rates; the gradients are then gone."""
        self._merge()
        for touched in self._touched:
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - merged ones have both
            self._adagrads["table"].step(touched.where, touched.rows.grad, scale)
            self._adagrads["gates"].step(touched.where, touched.gates.grad, scale)
        self._touched = []

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Weights and sums by name, on the CPU."""
        weights = {f"weight.{prefix}table": self.embedding.table, f"weight.{prefix}gates": self.embedding.gates}
        sums = {f"adagrad.{prefix}{name}": optimiser.accumulator for name, optimiser in self._adagrads.items()}
        return {name: value.cpu() for name, value in (weights | sums).items()}

    def load(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        """Take over what `tensors` gave."""
        self.embedding.table.copy_(tensors[f"weight.{prefix}table"])
        self.embedding.gates.copy_(tensors[f"weight.{prefix}gates"])
        for name, optimiser in self._adagrads.items():
            optimiser.accumulator.copy_(tensors[f"adagrad.{prefix}{name}"])

    def _merge(self) -> None:
        """Add up what several forward calls of a step say of the same row, so that Adagrad sees their sum."""
        self._touched = [touched for touched in self._touched if touched.rows.grad is not None]
        if len(self._touched) < 2:
            return
        where, inverse = torch.unique(torch.cat([touched.where for touched in self._touched]), return_inverse=True)
        table = self.embedding.table
        rows, gates = table.new_zeros(len(where), table.shape[1]), table.new_zeros(len(where))
        places = torch.split(inverse, [len(touched.where) for touched in self._touched])
        for touched, place in zip(self._touched, places, strict=True):
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - filtered above
            rows.index_add_(0, place, touched.rows.grad)
            gates.index_add_(0, place, touched.gates.grad)
        self._touched = [_Touched(where, _leaf_with(rows), _leaf_with(gates))]


def _leaf_with(gradient: Tensor) -> Tensor:
    """A leaf that holds this gradient; its value is not needed any more."""
    leaf = gradient.detach()
    leaf.grad = gradient
    return leaf
