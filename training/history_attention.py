"""Attention over a long history: scores from a narrow table of their own, the sum of rows of the main table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from index.bags import Sequences
from index.packed import spans
from index.tokens import length_runs
from training.trained_table import TrainedRows, TrainedTable

ATTENTION_DIM = 8
# Of a history, how many of its newest values form the attention's query.
NEWEST = 5
# Padded cells that are scored at once: bounds memory at so many rows of the attention table.
_CELLS = 1 << 18


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some values of each history, (n, count) or 0 wide: table rows int64, ages (0 is the newest) and a mask of 1 and
    0, both float32."""

    rows: Tensor
    ages: Tensor
    mask: Tensor


class HistoryAttention(nn.Module):
    """What is learned of one history field beside the tables.

    Method: Decoupled attention and representation embeddings (DARE, ICLR 2025): what is looked for and what is found
    come from different tables. A query tower knows no target, so the newest values and a learned vector ask instead.
    The score of a value falls with the logarithm of its age, at a learned slope.
    """

    def __init__(self, top: int) -> None:
        super().__init__()
        self.top = top
        self.query = nn.Parameter(torch.zeros(ATTENTION_DIM))
        self.slope = nn.Parameter(torch.tensor(0.5))

    def forward(self, newest: Tensor, newest_mask: Tensor, kept: Tensor, chosen: Chosen) -> Tensor:
        """Weights (n, top) of the chosen values, 0 where there is none, else of sum 1.

        newest, kept: attention rows (n, NEWEST, 8) and (n, top, 8) of the newest and of the chosen values.
        """
        query = self.query_of(newest, newest_mask)  # (n, 8)
        scores = torch.einsum("nkd,nd->nk", kept, query) / ATTENTION_DIM**0.5
        scores = scores - self.slope * torch.log1p(chosen.ages)
        # What is not there must not take part, but a history of nothing at all needs numbers.
        shares: Tensor = scores.masked_fill(chosen.mask == 0, -1e30).softmax(dim=1) * chosen.mask
        return shares

    def query_of(self, newest: Tensor, mask: Tensor) -> Tensor:
        """(n, 8) from attention rows (n, NEWEST, 8); computed in their precision."""
        mean = (newest * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return mean + self.query

    def choose(self, sequences: Sequences, table: Tensor) -> Chosen:
        """The `top` values of each history that score best; table: the attention table (rows, 8).

        In double precision: the same values must be chosen by whatever computes the scores in another order.
        """
        rows = np.zeros((len(sequences), self.top), dtype=np.int64)
        ages = np.zeros((len(sequences), self.top), dtype=np.float32)
        mask = np.zeros((len(sequences), self.top), dtype=np.float32)
        lengths = sequences.lengths
        order = np.argsort(lengths, kind="stable")
        for part in length_runs(lengths[order], _CELLS):
            texts = order[part]
            taken = sequences.take(texts)
            count = min(self.top, int(taken.lengths.max(initial=0)))
            if count:
                filled, best, old = self._best(taken, table, count)
                rows[texts, :count], ages[texts, :count], mask[texts, :count] = best, old, filled
        return Chosen(*(torch.from_numpy(part).to(table.device) for part in (rows, ages, mask)))

    @torch.no_grad()
    def _best(
        self, sequences: Sequences, table: Tensor, count: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        lengths = sequences.lengths
        rows, filled = sequences.padded(int(lengths.max()))
        places = torch.from_numpy(rows.astype(np.int64)).to(table.device)
        newest = newest_of(sequences, table.device)
        query = self.query_of(table[newest.rows].double(), newest.mask.double())
        scores = torch.einsum("nhd,nd->nh", table[places].double(), query) / ATTENTION_DIM**0.5
        ages = torch.from_numpy(np.maximum(lengths[:, None] - 1 - np.arange(rows.shape[1]), 0)).to(table.device)
        scores -= self.slope.double() * torch.log1p(ages.double())
        scores.masked_fill_(torch.from_numpy(filled).to(table.device) == 0, -torch.inf)
        best = scores.topk(count, dim=1)
        found = torch.stack([best.values.isfinite(), places.gather(1, best.indices), ages.gather(1, best.indices)])
        kept, values, old = found.cpu().numpy()
        return kept.astype(np.bool_), values * kept, old * kept


def newest_of(sequences: Sequences, device: torch.device | None = None) -> Chosen:
    """The newest values of each history, (n, NEWEST)."""
    lengths = np.minimum(sequences.lengths, NEWEST)
    rows = np.zeros((len(sequences), NEWEST), dtype=np.int64)
    filled = np.arange(NEWEST) < lengths[:, None]
    rows[filled] = sequences.rows[spans(sequences.offsets[1:] - lengths, lengths)]
    ages = np.where(filled, lengths[:, None] - 1 - np.arange(NEWEST), 0).astype(np.float32)
    parts = (rows, ages, filled.astype(np.float32))
    return Chosen(*(torch.from_numpy(part).to(device) for part in parts))


def history_sums(
    attention: HistoryAttention, sequences: Sequences, scored: TrainedRows, table: TrainedTable, weights: Tensor
) -> Tensor:
    """The attention-weighted sums (n, dim) of gated rows of `table`; that of an empty history is 0.

    scored: the attention table, `weights` its one parameter (rows, 8). All gradients go through the chosen values only.
    """
    some = np.flatnonzero(sequences.lengths)
    if len(some) < len(sequences):
        # Labels, which are most of a batch, commonly have none: nothing is looked up for them.
        device = weights.device
        sums = torch.zeros(len(sequences), table.embedding.table.shape[1], device=device)
        # In the graph all the same: several processes add up the same gradients, whatever their parts hold.
        sums = sums + 0.0 * (attention.query.sum() + attention.slope)
        if not len(some):
            return sums
        found = history_sums(attention, sequences.take(some), scored, table, weights)
        return sums.index_add(0, torch.from_numpy(some).to(device), found)
    newest, chosen = newest_of(sequences, weights.device), attention.choose(sequences, weights)
    both = torch.cat([newest.rows, chosen.rows], dim=1)
    where, places = torch.unique(both, return_inverse=True)
    (rows,) = scored.touch(where)
    looked_up = rows[places]  # (n, NEWEST + top, 8)
    shares = attention(looked_up[:, :NEWEST], newest.mask, looked_up[:, NEWEST:], chosen)
    where, places = torch.unique(chosen.rows, return_inverse=True)
    found = table.gated(where)[places]  # (n, top, dim)
    return torch.bmm(shares[:, None], found)[:, 0]
