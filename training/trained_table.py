"""Tables in training: the rows that a step has touched, and the row-wise Adagrad that moves them."""

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
    """The table rows of one forward call, and for each parameter the leaf that collects their gradients."""

    where: Tensor
    leaves: tuple[Tensor, ...]


class TrainedRows:
    """Parameters of equally many rows, (rows, dim) or (rows,), outside of autograd, with an optimiser each.

    Calls of `touch` in a graph are what `update` moves rows by.
    """

    def __init__(self, parameters: dict[str, Tensor], rates: dict[str, float]) -> None:
        """rates: of row-wise Adagrad, by the parameters' names."""
        self._parameters = parameters
        self._adagrads = {name: RowAdagrad(parameter, rates[name]) for name, parameter in parameters.items()}
        self._touched: list[_Touched] = []

    def touch(self, where: Tensor) -> tuple[Tensor, ...]:
        """Copies of the rows `where` (n,) int64, each named once, of every parameter: leaves of the graph."""
        leaves = tuple(parameter[where].requires_grad_() for parameter in self._parameters.values())
        if torch.is_grad_enabled():  # the gradient cache's first pass has none, and needs none
            self._touched.append(_Touched(where, leaves))
        return leaves

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows training has ever moved, (rows,)."""
        sums = torch.stack([optimiser.accumulator for optimiser in self._adagrads.values()])
        known: NDArray[np.bool_] = (sums > 0).any(dim=0).cpu().numpy()
        return known

    def gradients(self) -> list[Tensor]:
        """Those of the touched rows, merged into one array for each parameter."""
        self._merge()
        return [gradient for touched in self._touched for gradient in _gradients(touched)]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients over all processes, which have touched different rows."""
        self._merge()
        wide = [parameter.reshape(len(parameter), -1) for parameter in self._parameters.values()]
        widths = [parameter.shape[1] for parameter in wide]
        where = torch.empty(0, dtype=torch.int64, device=wide[0].device)
        together = wide[0].new_empty(0, sum(widths))
        for touched in self._touched:  # one, or none
            where = touched.where
            together = torch.cat([gradient.reshape(len(where), -1) for gradient in _gradients(touched)], dim=1)
        counts = world.counts(len(where))
        parts = zip(*(torch.split(world.gather(side, counts), counts) for side in (where, together)), strict=True)
        self._touched = [
            _Touched(
                rows,
                tuple(
                    _leaf_with(part.reshape(len(rows), *parameter.shape[1:]))
                    for part, parameter in zip(torch.split(sums, widths, dim=1), self._parameters.values(), strict=True)
                ),
            )
            for rows, sums in parts
        ]
        self._merge()

    def update(self, scale: float) -> None:
        """One step at `scale` times the rates; the gradients are then gone."""
        self._merge()
        for touched in self._touched:
            for optimiser, gradient in zip(self._adagrads.values(), _gradients(touched), strict=True):
                optimiser.step(touched.where, gradient, scale)
        self._touched = []

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Weights and sums by name, on the CPU."""
        weights = {f"weight.{prefix}{name}": parameter for name, parameter in self._parameters.items()}
        sums = {f"adagrad.{prefix}{name}": optimiser.accumulator for name, optimiser in self._adagrads.items()}
        return {name: value.cpu() for name, value in (weights | sums).items()}

    def load(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        """Take over what `tensors` gave."""
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[f"weight.{prefix}{name}"])
            self._adagrads[name].accumulator.copy_(tensors[f"adagrad.{prefix}{name}"])

    def _merge(self) -> None:
        """Add up what several forward calls of a step say of the same row, so that Adagrad sees their sum."""
        self._touched = [touched for touched in self._touched if touched.leaves[0].grad is not None]
        if len(self._touched) < 2:
            return
        where, inverse = torch.unique(torch.cat([touched.where for touched in self._touched]), return_inverse=True)
        places = torch.split(inverse, [len(touched.where) for touched in self._touched])
        sums = [parameter.new_zeros(len(where), *parameter.shape[1:]) for parameter in self._parameters.values()]
        for touched, place in zip(self._touched, places, strict=True):
            for total, gradient in zip(sums, _gradients(touched), strict=True):
                total.index_add_(0, place, gradient)
        self._touched = [_Touched(where, tuple(_leaf_with(total) for total in sums))]


class TrainedTable(TrainedRows):
    """A unified embedding and its gates in training. Calls of `pooled` are calls of `touch`."""

    def __init__(self, embedding: UnifiedEmbedding, table_rate: float, gate_rate: float) -> None:
        self.embedding = embedding
        parameters = {"table": embedding.table, "gates": embedding.gates}
        super().__init__(parameters, {"table": table_rate, "gates": gate_rate})

    def pooled(self, bags: Bags, keep: NDArray[np.bool_] | None = None) -> Tensor:
        """Gated weighted sums of the bags' rows, (bags, dim), texts times slots of them.

        keep: (links,), which links take part, None for all.
        """
        lookup = Lookup.of(bags, keep, self.embedding.table.device)
        rows, gates = self.touch(lookup.rows)
        return self.embedding.pooled(lookup, rows, gates)

    def gated(self, where: Tensor) -> Tensor:
        """The rows `where` (n,), each named once, with their gates multiplied in, (n, dim)."""
        rows, gates = self.touch(where)
        return rows * gates.exp()[:, None]


def _gradients(touched: _Touched) -> list[Tensor]:
    gradients = [leaf.grad for leaf in touched.leaves if leaf.grad is not None]
    assert len(gradients) == len(touched.leaves)  # noqa: S101 - they go through the graph together
    return gradients


def _leaf_with(gradient: Tensor) -> Tensor:
    """A leaf that holds this gradient; its value is not needed any more."""
    leaf = gradient.detach()
    leaf.grad = gradient
    return leaf
