"""What a tower is to the trainer and the exporter, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.features import FeatureSpec
from index.fields import Fields
from index.tokens import TokenSpec

if TYPE_CHECKING:
    from training.distributed import World


class Items(Protocol):
    """Texts made ready for a tower, in a fixed order: bags of table rows, tokens, or both."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Features or tokens of each text, (n,)."""

    def take(self, texts: NDArray[np.int64], /) -> Self:
        """The given texts, in that order."""


class Tower(Protocol):
    """Texts to unit vectors. It owns its weights and their optimisers; the trainer owns the loop and the loss.

    Items are what its own `prepare` makes.

    One step is: any number of `batch` calls, one or more backward passes through what they returned, then `update`.
    """

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def spec(self) -> FeatureSpec | TokenSpec:
        """What `prepare` makes of a text: part of the model."""

    @property
    def device(self) -> torch.device:
        """Where `batch` and `encode` leave their vectors."""

    def prepare(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Items:
        """Featurise or tokenise, once for a whole corpus; fields: those of each text, None for none at all."""

    def batch(self, items: Any, random: np.random.Generator) -> Tensor:
        """Unit vectors (n, dim) float32 in training mode, in the autograd graph; n may be 0.

        All chance (dropout and the like) comes from `random` alone, so that a generator in the same state gives the
        same vectors again: the gradient cache and resuming depend on it.
        """

    def encode(self, items: Any) -> Tensor:
        """Unit vectors (n, dim) float32 without gradients or dropout."""

    def gradients(self) -> list[Tensor]:
        """Every gradient that backward has left since the last update, for clipping in place."""

    def sum_gradients(self, world: World) -> None:
        """Add them up over all processes."""

    def update(self, scale: float) -> None:
        """One optimiser step at `scale` times the configured rates; the gradients are then gone."""

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser state by name, on the CPU, to be kept in a checkpoint. Weights begin with "weight."."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave. Raises KeyError or ValueError where the shapes are another model's."""

    def export(self, folder: Path, name: str) -> None:
        """Write `{name}.onnx` and what it needs beside it, for index.encoder to run without torch."""
