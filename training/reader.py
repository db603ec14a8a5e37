"""The readers: from the pooled slots of a record, each with its own weights, to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Reader(nn.Module):
    """One linear layer over all slots side by side; the columns of a slot are what reads it.

    Method: Unified Embedding (NeurIPS 2023): features that share rows are told apart by their readers, which training
    makes orthogonal where it pays.
    """

    def __init__(self, slots: int, row: int, dim: int, dropout: float) -> None:
        """slots: of the bags, and one for each history field. row: width of each."""
        super().__init__()
        self.linear = nn.Linear(slots * row, dim)
        # The mean of a long text's rows is small at first. Beside a bias of the usual size all texts would begin as one
        # and the same vector, and training with many labels does not get away from that.
        nn.init.zeros_(self.linear.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, slots: Tensor) -> Tensor:
        """(n, slots, row) to (n, dim)."""
        read: Tensor = self.linear(self.dropout(slots.flatten(1)))
        return read


def slot_means(sums: Tensor, weights: Tensor) -> Tensor:
    """Weighted means (n, slots, row) from weighted sums and the sums of the weights (n, slots); an empty slot is 0."""
    return sums / torch.where(weights > 0, weights, 1.0)[:, :, None]
