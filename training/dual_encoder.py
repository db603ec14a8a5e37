"""The dual encoder: a query tower, a label tower, and what is known of a label beside its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.bags import Bags, stack_bags
from index.label_vector import centroid_part, free_part, label_sum, unit
from training.centroids import Centroids
from training.config import Config
from training.dataset import Dataset
from training.frozen_tower import FrozenTower
from training.gradient_cache import chunks_of
from training.row_adagrad import RowAdagrad
from training.tower import Items, Tower
from training.unified_tower import UnifiedTower

if TYPE_CHECKING:
    from training.distributed import World


class DualEncoder:
    """Query tower f and label tower g = unit(text ⊕ free ⊕ centroid), f and the text part of g sharing all weights
    unless `tower.shared` is off.

    free: (labels, dim). counts: (labels, 1), how many training queries carry each label; index.label_vector trusts the
    free vector and the centroid by it, so that a label without training queries has its text alone.
    """

    def __init__(self, config: Config, dataset: Dataset, published: NDArray[np.float32] | None = None) -> None:
        """published: (labels, dim), label vectors that stay as they are, of which labels are LabelRows; None for labels
        that are trained."""
        self.config = config
        seed = config.training.seed
        self.queries = make_tower(config, seed)
        self.labels: Tower
        if published is not None:
            self.labels = FrozenTower(published, self.queries.spec, self.queries.device)
        else:
            self.labels = self.queries if config.tower.shared else make_tower(config, seed + 1)
        counts = torch.from_numpy(dataset.counts.astype(np.float32))[:, None]
        self.counts = counts.to(self.queries.device)
        self.free = torch.zeros(len(counts), self.queries.dim, device=self.queries.device)
        self.centroids = Centroids(dataset.relevance, self.queries.dim) if config.label.centroid else None
        self._free_adagrad = RowAdagrad(self.free, config.training.free_rate)

    @property
    def towers(self) -> dict[str, Tower]:
        """The towers by name, each once."""
        return {"tower": self.queries} if self.labels is self.queries else {"query": self.queries, "label": self.labels}

    def batch(self, queries: Items, labels: Items, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Vectors of queries (b, dim) and label texts (p, dim) in the graph, in one call of the tower if that pays."""
        tower = self.queries
        if self.labels is tower and isinstance(queries, Bags) and isinstance(labels, Bags):
            # One table look-up serves both sides, and rows that both touch are read and written once.
            both = tower.batch(stack_bags(queries, labels), random)
            return both[: len(queries)], both[len(queries) :]
        return tower.batch(queries, random), self.labels.batch(labels, random)

    def own_chance(
        self, world: World, queries: Items, labels: Items, chunk: int, random: np.random.Generator
    ) -> np.random.Generator:
        """Where this process draws chance from for its own part of these texts: for one process, `random` itself.

        For several, `random` is moved on in all of them as encoding all the texts, chunk by chunk, would in one. So
        what is drawn later, such as which labels go without their free vector, depends on no number of processes.
        """
        if world.size == 1:
            return random
        if chunk:
            calls = [[part] for side in (queries, labels) for part in chunks_of(side, chunk)]
        else:
            both = self.labels is self.queries and isinstance(queries, Bags)
            calls = [[queries, labels]] if both else [[queries], [labels]]
        seed = 0
        for call in calls:
            random.random(sum(len(items.rows) for items in call if isinstance(items, Bags)), dtype=np.float32)
            seed = int(random.integers(1 << 62))
        return np.random.default_rng([seed, world.rank])

    def label_vectors(self, texts: Tensor) -> Tensor:
        """Unit vectors (labels, dim) of all labels from their text vectors (labels, dim), no graph."""
        with torch.no_grad():
            return unit(self.label_sums(texts))

    def label_sums(self, texts: Tensor) -> Tensor:
        """The same before they are brought to unit length."""
        parts = []
        if self.config.label.free:
            parts.append(free_part(self.free, self.counts))
        if self.centroids is not None:
            parts.append(centroid_part(self.centroids.sums.to(texts), self.counts))
        return label_sum(texts, *parts)

    def update_free(self, labels: Tensor, gradient: Tensor, scale: float) -> None:
        """One Adagrad step of the free vectors of `labels` (p,)."""
        self._free_adagrad.step(labels.to(self.free.device), gradient, scale)

    def gradients(self) -> list[Tensor]:
        """Those of the towers, for clipping in place."""
        return [gradient for tower in self.towers.values() for gradient in tower.gradients()]

    def sum_gradients(self, world: World) -> None:
        """Add up the gradients of the towers over all processes."""
        for tower in self.towers.values():
            tower.sum_gradients(world)

    def update(self, scale: float) -> None:
        for tower in self.towers.values():
            tower.update(scale)

    def tensors(self) -> dict[str, Tensor]:
        """All weights and optimiser state, for a checkpoint."""
        found = {
            f"{name}.{key}": value for name, tower in self.towers.items() for key, value in tower.tensors().items()
        }
        found |= {"free": self.free.cpu(), "adagrad.free": self._free_adagrad.accumulator.cpu()}
        if self.centroids is not None:
            found |= {"centroids.sums": self.centroids.sums, "centroids.vectors": self.centroids.vectors}
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over a checkpoint of a model of the same settings."""
        self._load_towers(tensors)
        self.free.copy_(tensors["free"])
        self._free_adagrad.accumulator.copy_(tensors["adagrad.free"])
        if self.centroids is not None:
            self.centroids.sums.copy_(tensors["centroids.sums"])
            self.centroids.vectors.copy_(tensors["centroids.vectors"])

    def begin_from(self, tensors: dict[str, Tensor], here: NDArray[np.int64], there: NDArray[np.int64]) -> None:
        """Take over the towers of a checkpoint, and the free vectors of the labels `there` for the labels `here`.

        Both are (known,) rows of the same labels; other labels stay without a free vector. Centroids stay empty: they
        are sums over training queries, which may be others now. Where labels are published, the query tower is all.
        """
        if isinstance(self.labels, FrozenTower):
            prefix = "query." if any(name.startswith("query.") for name in tensors) else "tower."
            self.queries.load(_under(prefix, tensors))
            return
        self._load_towers(tensors)
        rows, old = torch.from_numpy(here), torch.from_numpy(there)
        for own, name in ((self.free, "free"), (self._free_adagrad.accumulator, "adagrad.free")):
            own[rows.to(own.device)] = tensors[name][old].to(own.device)

    def _load_towers(self, tensors: dict[str, Tensor]) -> None:
        for name, tower in self.towers.items():
            tower.load(_under(f"{name}.", tensors))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def make_tower(config: Config, seed: int) -> Tower:
    """A new tower of the configured kind."""
    if config.tower.kind == "transformer":
        from training.field_vectors import FieldSettings
        from training.transformer import TransformerTower  # heavy: only where it is asked for

        training, spec = config.training, config.features
        fields = FieldSettings(spec, training.table_rate, training.gate_rate) if spec.fields else None
        return TransformerTower(config.transformer, seed, fields)
    return UnifiedTower(config, seed)
