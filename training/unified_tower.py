"""The unified tower: one hashed table and a few dense layers, from bags of features to unit vectors, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.bags import Bags, Sequences, offsets_of
from index.features import Featurizer
from index.fields import Fields
from training.adamw import adamw_tensors, restore_adamw
from training.config import Config
from training.dense import Dense
from training.history_attention import ATTENTION_DIM, history_sums
from training.onnx_graph import TowerParts, write_towers
from training.trained_table import TrainedRows, TrainedTable
from training.unified_embedding import UnifiedEmbedding

if TYPE_CHECKING:
    from training.distributed import World

_BLOCK = 2048


class UnifiedTower:
    """A training.tower.Tower over index.features.Bags."""

    def __init__(self, config: Config, seed: int) -> None:
        training, spec = config.training, config.features
        self.dim, self.device = config.tower.dim, torch.device("cpu")
        self.spec = spec
        self._feature_dropout = training.feature_dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.dense = Dense(spec, config.tower)
        generator = torch.Generator().manual_seed(seed)
        self.embedding = UnifiedEmbedding(spec.rows, self.dense.row, generator)
        self._rate = training.dense_rate
        self._table = TrainedTable(self.embedding, training.table_rate, training.gate_rate)
        self.attention = torch.zeros(spec.rows if len(self.dense.histories) else 0, ATTENTION_DIM)
        self.attention.uniform_(-0.05, 0.05, generator=generator)
        self._scored = TrainedRows({"attention": self.attention}, {"attention": training.table_rate})
        self._rows = [self._table, self._scored] if len(self.attention) else [self._table]
        self._dense = torch.optim.AdamW(self.dense.parameters(), lr=self._rate, weight_decay=training.weight_decay)
        # Those of the head are older than the other parts, and without their prefix.
        self._names = [name.removeprefix("head.") for name, _ in self.dense.named_parameters()]

    def prepare(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        """Of queries, and without a lexicon: a dataset's are made by training.dataset."""
        return Featurizer(self.spec)(texts, fields)

    def batch(self, items: Bags, random: np.random.Generator) -> Tensor:
        """Unit vectors (n, dim) in the graph; a share of each text's features, fields included, is left out."""
        keep = random.random(len(items.rows), dtype=np.float32) >= self._feature_dropout
        seed = int(random.integers(1 << 62))
        # From the seed, so that what is drawn of `random` is known by the bags alone (DualEncoder.own_chance).
        sequences = _thinned(items.sequences, self._feature_dropout, np.random.default_rng(seed))
        self.dense.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._vectors(items, keep, sequences)

    def encode(self, items: Bags) -> Tensor:
        self.dense.eval()
        blocks = [torch.empty(0, self.dim)]
        with torch.no_grad():
            for start in range(0, len(items), _BLOCK):
                block = items.take(np.arange(start, min(start + _BLOCK, len(items))))
                blocks.append(self._vectors(block, None, block.sequences))
        return torch.cat(blocks)

    def _vectors(self, items: Bags, keep: NDArray[np.bool_] | None, sequences: Sequence[Sequences]) -> Tensor:
        sums = self._table.pooled(items, keep).reshape(len(items), self.dense.slots, self.dense.row)
        weights = None
        if self.dense.reader is not None:
            kept = items.weights if keep is None else items.weights * keep
            bags = np.repeat(np.arange(len(items.offsets) - 1), np.diff(items.offsets))
            totals = np.bincount(bags, kept, len(items.offsets) - 1).astype(np.float32)
            weights = torch.from_numpy(totals).reshape(len(items), self.dense.slots)
        histories = [
            history_sums(attention, sequence, self._scored, self._table, self.attention)
            for attention, sequence in zip(self.dense.attentions, sequences, strict=True)
        ]
        vectors: Tensor = self.dense(sums, weights, histories)
        return vectors

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows training has touched, (rows,)."""
        known = self._table.known
        return known | self._scored.known if len(self.attention) else known

    def gradients(self) -> list[Tensor]:
        """Those of the tables' touched rows (merged into one array each), the gates, and the dense part."""
        return [*(gradient for rows in self._rows for gradient in rows.gradients()), *self._dense_gradients()]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients over all processes, which have touched different rows of the tables."""
        for rows in self._rows:
            rows.sum_gradients(world)
        world.sum(self._dense_gradients())

    def _dense_gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.dense.parameters() if parameter.grad is not None]

    def update(self, scale: float) -> None:
        for rows in self._rows:
            rows.update(scale)
        for group in self._dense.param_groups:
            group["lr"] = self._rate * scale
        self._dense.step()
        self._dense.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"weight.{name}": value for name, value in self.dense.state_dict().items()}
        tables = {name: value for rows in self._rows for name, value in rows.tensors().items()}
        return {**tables, **weights, **adamw_tensors(self._dense, self._names)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        for rows in self._rows:
            rows.load(tensors)
        self.dense.load_state_dict({name: tensors[f"weight.{name}"] for name in self.dense.state_dict()})
        restore_adamw(self._dense, self._names, tensors)

    def export(self, folder: Path, name: str) -> None:
        write_towers(folder, (name,), [self.parts()], self.dim)

    def parts(self) -> TowerParts:
        """The trained tower without what only training needs."""
        return TowerParts(self.dense.eval(), self.embedding.folded(), self.attention)


def _thinned(sequences: Sequence[Sequences], share: float, random: np.random.Generator) -> Sequence[Sequences]:
    """The same without a share of their values."""
    if not share:
        return sequences
    thinned = []
    for sequence in sequences:
        keep = random.random(len(sequence.rows), dtype=np.float32) >= share
        before = offsets_of(keep.astype(np.int64))
        thinned.append(Sequences(before[sequence.offsets], sequence.rows[keep]))
    return thinned
