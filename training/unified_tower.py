"""The unified tower: one hashed table and a residual MLP, from bags of features to unit vectors, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from index.features import Bags, Featurizer
from training.adamw import adamw_tensors, restore_adamw
from training.config import Config
from training.head import Head
from training.onnx_graph import TABLE_FILE, write_graph, write_table
from training.row_adagrad import RowAdagrad
from training.unified_embedding import Lookup, UnifiedEmbedding

if TYPE_CHECKING:
    from training.distributed import World

_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class _Touched:
    """The table rows of one forward call, and the leaves that collect their gradients."""

    where: Tensor
    rows: Tensor
    gates: Tensor


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
        self._adagrads = {
            "table": RowAdagrad(self.embedding.table, training.table_rate),
            "gates": RowAdagrad(self.embedding.gates, training.gate_rate),
        }
        self._dense = torch.optim.AdamW(self.head.parameters(), lr=self._rate, weight_decay=training.weight_decay)
        self._names = [name for name, _ in self.head.named_parameters()]
        self._touched: list[_Touched] = []

    def prepare(self, texts: Sequence[str]) -> Bags:
        return self._featurizer(texts)

    def batch(self, items: Bags, random: np.random.Generator) -> Tensor:
        """Unit vectors (n, dim) in the graph; a share of each text's features is left out."""
        keep = random.random(len(items.rows), dtype=np.float32) >= self._feature_dropout
        seed = int(random.integers(1 << 62))
        lookup = Lookup.of(items, keep)
        rows, gates = self.embedding.touched(lookup)
        if torch.is_grad_enabled():  # the gradient cache's first pass has none, and needs none
            self._touched.append(_Touched(lookup.rows, rows, gates))
        self.head.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vectors: Tensor = self.head(self.embedding.pooled(lookup, rows, gates))
        return vectors

    def encode(self, items: Bags) -> Tensor:
        self.head.eval()
        blocks = [torch.empty(0, self.dim)]
        with torch.no_grad():
            for start in range(0, len(items), _BLOCK):
                lookup = Lookup.of(items.take(np.arange(start, min(start + _BLOCK, len(items)))))
                rows, gates = self.embedding.table[lookup.rows], self.embedding.gates[lookup.rows]
                blocks.append(self.head(self.embedding.pooled(lookup, rows, gates)))
        return torch.cat(blocks)

    def gradients(self) -> list[Tensor]:
        """Those of the table's touched rows (merged into one array), their gates, and the head."""
        self._merge()
        leaves = [leaf for touched in self._touched for leaf in (touched.rows, touched.gates)]
        found = [leaf.grad for leaf in (*leaves, *self.head.parameters())]
        return [gradient for gradient in found if gradient is not None]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients over all processes, which have touched different rows of the table."""
        self._merge()
        where, both = torch.empty(0, dtype=torch.int64), torch.empty(0, self.dim + 1)
        for touched in self._touched:  # one, or none
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - merged ones have both
            where, both = touched.where, torch.cat([touched.rows.grad, touched.gates.grad[:, None]], dim=1)
        counts = world.counts(len(where))
        parts = zip(*(torch.split(world.gather(side, counts), counts) for side in (where, both)), strict=True)
        self._touched = [_Touched(rows, _leaf_with(sums[:, :-1]), _leaf_with(sums[:, -1])) for rows, sums in parts]
        self._merge()
        world.sum([parameter.grad for parameter in self.head.parameters() if parameter.grad is not None])

    def update(self, scale: float) -> None:
        self._merge()
        for touched in self._touched:
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - merged ones have both
            self._adagrads["table"].step(touched.where, touched.rows.grad, scale)
            self._adagrads["gates"].step(touched.where, touched.gates.grad, scale)
        self._touched = []
        for group in self._dense.param_groups:
            group["lr"] = self._rate * scale
        self._dense.step()
        self._dense.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"weight.head.{name}": value for name, value in self.head.state_dict().items()}
        sums = {f"adagrad.{name}": optimiser.accumulator for name, optimiser in self._adagrads.items()}
        table = {"weight.table": self.embedding.table, "weight.gates": self.embedding.gates}
        return {**table, **weights, **sums, **adamw_tensors(self._dense, self._names)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.embedding.table.copy_(tensors["weight.table"])
        self.embedding.gates.copy_(tensors["weight.gates"])
        self.head.load_state_dict({name: tensors[f"weight.head.{name}"] for name in self.head.state_dict()})
        for name, optimiser in self._adagrads.items():
            optimiser.accumulator.copy_(tensors[f"adagrad.{name}"])
        restore_adamw(self._dense, self._names, tensors)

    def export(self, folder: Path, name: str) -> None:
        table = self.embedding.folded()
        self.head.eval()
        write_table(folder / TABLE_FILE, [table])
        write_graph(folder / f"{name}.onnx", [self.head], len(table), self.dim, self.dim)

    def _merge(self) -> None:
        """Add up what several forward calls of a step say of the same row, so that Adagrad sees their sum."""
        self._touched = [touched for touched in self._touched if touched.rows.grad is not None]
        if len(self._touched) < 2:
            return
        where, inverse = torch.unique(torch.cat([touched.where for touched in self._touched]), return_inverse=True)
        rows, gates = torch.zeros(len(where), self.dim), torch.zeros(len(where))
        places = torch.split(inverse, [len(touched.where) for touched in self._touched])
        for touched, place in zip(self._touched, places, strict=True):
            assert touched.rows.grad is not None and touched.gates.grad is not None  # noqa: S101 - filtered above
            rows.index_add_(0, place, touched.rows.grad)
            gates.index_add_(0, place, touched.gates.grad)
        self._touched = [_Touched(where, _leaf_with(rows), _leaf_with(gates))]


def _leaf_with(gradient: Tensor) -> Tensor:
    """A leaf that holds this gradient; its value is not needed any more."""
    leaf = gradient.detach()
    leaf.grad = gradient
    return leaf
