"""Row-wise Adagrad: one accumulator for a row, and only the rows that a step touched are read or written."""

from __future__ import annotations

import torch
from torch import Tensor


class RowAdagrad:
    """Adagrad (Duchi et al. 2011) with the mean square of a row's gradient as the row's one accumulator.

    parameter: (rows, dim) or (rows,), changed in place.
    """

    def __init__(self, parameter: Tensor, rate: float) -> None:
        self.parameter = parameter
        self.rate = rate
        self.accumulator = torch.zeros(parameter.shape[0], device=parameter.device)

    def step(self, rows: Tensor, gradient: Tensor, scale: float) -> None:
        """Move `rows` (n,), each named once, against `gradient` (n, dim) or (n,), at `scale` times the rate.

        Overwrites `gradient`: a second array of its size would cost more time than the arithmetic.
        """
        wide = gradient if gradient.dim() == 2 else gradient[:, None]
        square = torch.linalg.vector_norm(wide, dim=1).square() / wide.shape[1]
        sums = self.accumulator[rows] + square
        self.accumulator[rows] = sums
        wide.mul_((-self.rate * scale / (sums.sqrt() + 1e-8))[:, None])
        self.parameter.index_add_(0, rows, gradient)
