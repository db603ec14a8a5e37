"""The unified tower: one hashed table and a residual MLP, from bags of features to unit vectors, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from index.bags import Bags
from index.features import Featurizer
from index.fields import Fields
from training.adamw import adamw_tensors, restore_adamw
from training.config import Config
from training.head import Head
from training.onnx_graph import TABLE_FILE, write_graph, write_table
from training.trained_table import TrainedTable
from training.unified_embedding import UnifiedEmbedding

if TYPE_CHECKING:
    from training.distributed import World

_BLOCK = 2048


class UnifiedTower:
    """A training.tower.Tower over index.features.Bags."""

    def __init__(self, config: Config, seed: int) -> None:
        training, dim = config.training, config.tower.dim
        self.dim, self.device = dim, torch.device("cpu")
        self.spec = config.features
        self._featurizer = Featurizer(config.features)
        self._feature_dropout = training.feature_dropout
        self.embedding = UnifiedEmbedding(config.features.rows, dim, torch.Generator().manual_seed(seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = Head(dim, config.tower.hidden, config.tower.dropout)
        self._rate = training.dense_rate
        self._table = TrainedTable(self.embedding, training.table_rate, training.gate_rate)
        self._dense = torch.optim.AdamW(self.head.parameters(), lr=self._rate, weight_decay=training.weight_decay)
        self._names = [name for name, _ in self.head.named_parameters()]

    def prepare(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        return self._featurizer(texts, fields)

    def batch(self, items: Bags, random: np.random.Generator) -> Tensor:
        """Unit vectors (n, dim) in the graph; a share of each text's features, fields included, is left out."""
        keep = random.random(len(items.rows), dtype=np.float32) >= self._feature_dropout
        seed = int(random.integers(1 << 62))
        self.head.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vectors: Tensor = self.head(self._table.pooled(items, keep))
        return vectors

    def encode(self, items: Bags) -> Tensor:
        self.head.eval()
        blocks = [torch.empty(0, self.dim)]
        with torch.no_grad():
            for start in range(0, len(items), _BLOCK):
                block = items.take(np.arange(start, min(start + _BLOCK, len(items))))
                blocks.append(self.head(self._table.pooled(block)))
        return torch.cat(blocks)

    def gradients(self) -> list[Tensor]:
        """Those of the table's touched rows (merged into one array), their gates, and the head."""
        dense = [parameter.grad for parameter in self.head.parameters() if parameter.grad is not None]
        return [*self._table.gradients(), *dense]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients over all processes, which have touched different rows of the table."""
        self._table.sum_gradients(world)
        world.sum([parameter.grad for parameter in self.head.parameters() if parameter.grad is not None])

    def update(self, scale: float) -> None:
        self._table.update(scale)
        for group in self._dense.param_groups:
            group["lr"] = self._rate * scale
        self._dense.step()
        self._dense.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"weight.head.{name}": value for name, value in self.head.state_dict().items()}
        return {**self._table.tensors(), **weights, **adamw_tensors(self._dense, self._names)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._table.load(tensors)
        self.head.load_state_dict({name: tensors[f"weight.head.{name}"] for name in self.head.state_dict()})
        restore_adamw(self._dense, self._names, tensors)

    def export(self, folder: Path, name: str) -> None:
        table = self.embedding.folded()
        self.head.eval()
        write_table(folder / TABLE_FILE, [table])
        write_graph(folder / f"{name}.onnx", [self.head], len(table), self.dim, self.dim)
