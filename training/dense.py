"""The dense part of the unified tower: what makes a unit vector of the pooled bags and histories of a record."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from index.features import FeatureSpec
from training.config import TowerConfig
from training.head import Head
from training.history_attention import HistoryAttention
from training.reader import Reader, slot_means


class Dense(nn.Module):
    """Head, attention of each history field, and the reader where every slot has its own columns of one.

    slots, row: of the pooled bags. shares: (histories,), what a history's sum counts beside the bag's where there is no
    reader to weigh it.
    """

    def __init__(self, spec: FeatureSpec, config: TowerConfig) -> None:
        super().__init__()
        self.slots = len(spec.slot_names) if spec.separate else 1
        self.row, self.dim = (config.row if spec.separate else config.dim), config.dim
        self.head = Head(config.dim, config.hidden, config.dropout)
        self.histories = nn.ModuleList(HistoryAttention(field.top) for field in spec.histories)
        count = len(self.histories)
        self.reader = Reader(self.slots + count, self.row, config.dim, config.dropout) if spec.separate else None
        self.shares = nn.Parameter(torch.ones(count)) if count and not spec.separate else None

    @property
    def attentions(self) -> list[HistoryAttention]:
        """Of each history field."""
        return [attention for attention in self.histories if isinstance(attention, HistoryAttention)]

    def forward(self, sums: Tensor, weights: Tensor | None, histories: list[Tensor]) -> Tensor:
        """Unit vectors (n, dim).

        sums: weighted sums of the bags' rows, (n, slots, row). weights: those of each bag added up, (n, slots); looked
        at by a reader only. histories: sums (n, row) of each history field.
        """
        if self.reader is not None:
            assert weights is not None  # noqa: S101 - the tower gives them where there is a reader
            slots = [slot_means(sums, weights), *(history[:, None] for history in histories)]
            pooled = self.reader(torch.cat(slots, dim=1))
        else:
            pooled = sums[:, 0]
            if self.shares is not None:
                for share, history in zip(self.shares, histories, strict=True):
                    pooled = pooled + share * history
        vectors: Tensor = self.head(pooled)
        return vectors
