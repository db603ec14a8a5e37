"""The label tower of a run that trains queries alone: vectors that are looked up and never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.features import FeatureSpec
from index.fields import Fields
from index.tokens import TokenSpec

if TYPE_CHECKING:
    from training.distributed import World


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Items of a FrozenTower: rows (n,) int64 of its vectors."""

    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.ones(len(self.rows), dtype=np.int64)

    def take(self, texts: NDArray[np.int64], /) -> LabelRows:
        """The given ones, in that order."""
        return LabelRows(self.rows[texts])


class FrozenTower:
    """A training.tower.Tower over LabelRows, without weights: it trains nothing and leaves nothing in a checkpoint."""

    def __init__(self, vectors: NDArray[np.float32], spec: FeatureSpec | TokenSpec, device: torch.device) -> None:
        """vectors: (labels, dim), of unit length or zero. spec: of the tower that made them."""
        self.spec, self.device, self.dim = spec, device, vectors.shape[1]
        self._vectors = torch.from_numpy(vectors).to(device)

    def prepare(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Never:
        raise NotImplementedError("its items are rows, not texts")

    def batch(self, items: LabelRows, random: np.random.Generator) -> Tensor:
        """(n, dim), without a gradient."""
        # As other towers do, so that what is drawn later depends on no number of processes (DualEncoder.own_chance).
        random.integers(1 << 62)
        return self.encode(items)

    def encode(self, items: LabelRows) -> Tensor:
        return self._vectors[torch.from_numpy(items.rows).to(self.device)]

    def gradients(self) -> list[Tensor]:
        return []

    def sum_gradients(self, world: World) -> None:
        pass

    def update(self, scale: float) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        pass

    def export(self, folder: Path, name: str) -> Never:
        raise NotImplementedError("the published label tower is copied (training.published)")
