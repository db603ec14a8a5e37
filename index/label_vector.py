"""The one formula for a label's vector, shared by training, export and label addition."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FREE_PRIOR = 0.5
CENTROID_PRIOR = 1.0

# A NumPy array or a torch tensor: both do what is written here, and this folder knows no torch.
Array = TypeVar("Array", bound=Any)


def label_sum(text: Array, part: Array, counts: Array, prior: float) -> Array:
    """text + n / (n + prior) · part, before it is brought to unit length.

    text, part: (labels, dim), the unit text vectors (zero where nothing is known of a text) and the free vectors or
    the centroids of the examples; counts: (labels, 1), n examples of each label. What n examples say is trusted by n: a
    label without any is its text alone.
    """
    combined: Array = text + counts / (counts + prior) * part
    return combined


def unit(vectors: Array) -> Array:
    """Rows (n, dim) brought to length 1; a row of zeros stays zero."""
    scaled: Array = vectors / ((vectors * vectors).sum(-1)[:, None] + 1e-24) ** 0.5
    return scaled


def unknown_rows(sums: NDArray[np.float32]) -> list[int]:
    """Rows of label sums (labels, dim) that are zero: labels of which nothing is known, to be hidden from search."""
    found: list[int] = np.flatnonzero(~np.any(sums, axis=1)).tolist()
    return found
