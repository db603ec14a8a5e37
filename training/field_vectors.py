"""What the fields of a record add to a transformer tower's vectors: pooled rows of a unified embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from index.bags import Bags
from index.features import FeatureSpec
from training.trained_table import TrainedTable
from training.unified_embedding import UnifiedEmbedding

# Of the pooled rows beside a text's unit vector: a row's first steps then turn the vector, and do not replace it.
_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """spec: its fields, rows and seed are used. table_rate, gate_rate: of row-wise Adagrad."""

    spec: FeatureSpec
    table_rate: float
    gate_rate: float


class FieldVectors:
    """A table that begins with zeros: a tower with fields begins as the text alone, and a value that no training
    record has adds nothing, unless it shares its row with one that some have."""

    def __init__(self, settings: FieldSettings, dim: int, device: torch.device) -> None:
        embedding = UnifiedEmbedding(settings.spec.rows, dim, None, device)
        self.table = TrainedTable(embedding, settings.table_rate, settings.gate_rate)

    def added(self, texts: Tensor, bags: Bags) -> Tensor:
        """Unit vectors (n, dim) of text and fields, from unit vectors (n, dim) of the texts."""
        if not len(bags.rows):
            return texts
        return functional.normalize(texts + _SHARE * self.table.pooled(bags), dim=1)

    def folded(self) -> Tensor:
        """The table (rows, dim) as it is added to a unit vector, on the CPU."""
        return _SHARE * self.table.embedding.folded().cpu()
