"""The dense part of the unified tower: what makes a pooled bag a unit vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """From a pooled bag to the tower's output: its direction at length √dim, plus a residual MLP that starts at 0.

    Without a hidden layer (hidden = 0) it is the direction alone.
    """

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden or 1)
        self.narrow = nn.Linear(hidden or 1, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(bags, dim) to unit vectors (bags, dim)."""
        direction = functional.normalize(pooled, dim=1)
        if not self.hidden:
            return direction
        direction = direction * pooled.shape[1] ** 0.5
        inside = self.dropout(functional.gelu(self.widen(self.norm(direction))))
        return functional.normalize(direction + self.narrow(inside), dim=1)
