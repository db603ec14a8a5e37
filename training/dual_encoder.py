"""The dual encoder: a shared unified tower for queries and label texts, and a free vector for every label."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from index.features import Bags
from index.label_vector import FREE_PRIOR, label_sum, unit
from training.config import Config
from training.unified_embedding import Lookup, UnifiedEmbedding

_BLOCK = 2048


class Head(nn.Module):
    """From a pooled bag to the tower's output: its direction at length √dim, plus a residual MLP that starts at 0."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(bags, dim) to unit vectors (bags, dim)."""
        direction = functional.normalize(pooled, dim=1) * pooled.shape[1] ** 0.5
        inside = self.dropout(functional.gelu(self.widen(self.norm(direction))))
        return functional.normalize(direction + self.narrow(inside), dim=1)


class DualEncoder:
    """Query tower f and label tower g = unit(text ⊕ free), f and the text part of g sharing all weights.

    counts: (labels, 1), how many training queries carry each label; the formula in index.label_vector trusts a free
    vector by it, so that a label without training queries has its text alone.
    """

    def __init__(self, config: Config, counts: NDArray[np.int64]) -> None:
        generator = torch.Generator().manual_seed(config.training.seed)
        dim = config.tower.dim
        self.embedding = UnifiedEmbedding(config.features.rows, dim, generator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            self.head = Head(dim, config.tower.hidden, config.tower.dropout)
        self.free = torch.zeros(len(counts), dim)
        self.counts = torch.from_numpy(counts.astype(np.float32))[:, None]

    def encode(self, bags: Bags) -> Tensor:
        """Unit vectors (len(bags), dim) without gradients or dropout."""
        self.head.eval()
        blocks = [torch.empty(0, self.free.shape[1])]
        with torch.no_grad():
            for start in range(0, len(bags), _BLOCK):
                lookup = Lookup.of(bags.take(np.arange(start, min(start + _BLOCK, len(bags)))))
                rows, gates = self.embedding.table[lookup.rows], self.embedding.gates[lookup.rows]
                blocks.append(self.head(self.embedding.pooled(lookup, rows, gates)))
        return torch.cat(blocks)

    def label_vectors(self, texts: Tensor, labels: Tensor, free: Tensor) -> Tensor:
        """Unit label vectors (n, dim) of the given label rows (n,) from their text vectors and free vectors."""
        return unit(self.label_sums(texts, labels, free))

    def label_sums(self, texts: Tensor, labels: Tensor, free: Tensor) -> Tensor:
        """The same before they are brought to unit length."""
        return label_sum(texts, free, self.counts[labels], FREE_PRIOR)
