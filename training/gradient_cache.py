"""The gradient cache: a loss over more texts than their activations fit in memory, with the exact gradient.

Method: GradCache (Gao, Zhang, Han and Callan, RepL4NLP 2021). Vectors are cheap to hold, activations are not: encode
every chunk without a graph, take the loss' gradient by the vectors, then encode each chunk again and push its part of
that gradient through. One forward pass more buys memory for one chunk of activations instead of all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from training.tower import Items

T = TypeVar("T")
Chunk = TypeVar("Chunk", bound=Items)


@dataclass(frozen=True, slots=True)
class Chunked(Generic[T]):
    """One tower's share of a step.

    encode: a chunk to its vectors (n, dim) in the autograd graph, such as `Tower.batch`; all its chance from the
    generator or from torch's own. Called twice for each chunk, first without a graph. chunks: at least one.
    """

    encode: Callable[[T, np.random.Generator], Tensor]
    chunks: Sequence[T]


def chunks_of(items: Chunk, size: int) -> list[Chunk]:
    """Items in their order, `size` at a time; all at once for 0. Always at least one chunk, which may be empty."""
    if not 0 < size < len(items):
        return [items]
    return [items.take(np.arange(start, min(start + size, len(items)))) for start in range(0, len(items), size)]


def cached_backward(sides: Sequence[Chunked[T]], loss: Callable[..., Tensor], random: np.random.Generator) -> Tensor:
    """Add the gradient of `loss(vectors of each side, ...)` to every parameter, and return the loss, detached.

    The loss gets one matrix (texts, dim) for each of `sides`, in order, and gives a scalar; its own parameters get
    their gradient as usual. Chance is drawn once: side by side and chunk by chunk, then by the loss, as the same calls
    without the cache would draw it; `random` and torch's generators are left where those calls would leave them.
    """
    chances: list[list[_Chance]] = []
    leaves: list[Tensor] = []
    counts: list[list[int]] = []
    for side in sides:
        chances.append([])
        vectors = []
        for chunk in side.chunks:
            chances[-1].append(_Chance.now(random))
            with torch.no_grad():
                vectors.append(side.encode(chunk, random))
        counts.append([len(part) for part in vectors])
        leaves.append(torch.cat(vectors).requires_grad_())
        del vectors
    value = loss(*leaves)
    value.backward()  # type: ignore[no-untyped-call]
    after = _Chance.now(random)
    for side, leaf, parts, replay in zip(sides, leaves, counts, chances, strict=True):
        if leaf.grad is not None:
            _push(side, torch.split(leaf.grad, parts), replay)
    after.again()
    return value.detach()


def _push(side: Chunked[T], gradients: Sequence[Tensor], chances: Sequence[_Chance]) -> None:
    """Encode each chunk again, in the graph and with the same chance, and push its gradient through."""
    for chunk, gradient, chance in zip(side.chunks, gradients, chances, strict=True):
        vectors = side.encode(chunk, chance.again())
        if vectors.requires_grad:
            vectors.backward(gradient)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Chance:
    """The state of everything that chance may come from."""

    random: np.random.Generator
    cpu: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls, random: np.random.Generator) -> Self:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        return cls(copy.deepcopy(random), torch.get_rng_state(), cuda)

    def again(self) -> np.random.Generator:
        """Put torch back into this state, and give a generator in this state."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        return copy.deepcopy(self.random)
