"""The vector of a label that is added, edited or fed back while serving: the formula of training, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.label_vector import centroid_part, label_sum, unit

# The most similar trained labels of vectors (n, dim): their scores (n, k) and unit vectors (n, k, dim).
Nearest = Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Addition:
    """Settings of the formula, kept in the bundle's manifest; the default is text ⊕ centroid and nothing else."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Addition:
        return cls(**values)


def added_vectors(
    texts: NDArray[np.float32],
    trained: NDArray[np.float32],
    sums: NDArray[np.float64],
    counts: NDArray[np.float32],
    settings: Addition,
    nearest: Nearest,
) -> NDArray[np.float32]:
    """Label vectors (n, dim); zero where nothing is known of a label.

    texts: (n, dim) unit text vectors, zero without a text. trained: (n, dim), what training left of the label beside its
    text, zero for labels that it did not know. sums, counts: (n, dim) and (n, 1), of the query vectors of its examples.
    """
    examples = centroid_part(sums, counts).astype(np.float32)
    return np.asarray(unit(label_sum(texts, trained, examples)), dtype=np.float32)
