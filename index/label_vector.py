"""The one formula for a label's vector, shared by training, export and label addition."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FREE_PRIOR = 0.5
CENTROID_PRIOR = 1.0

# A NumPy array or a torch tensor: both do what is written here, and this folder knows no torch.
Array = TypeVar("Array", bound=Any)


def label_sum(text: Array, *parts: Array) -> Array:
    """text ⊕ free vector ⊕ centroid: the sum of the parts, before it is brought to unit length.

    text: (labels, dim), unit text vectors, zero where nothing is known of a text. parts: of the same shape, from
    `free_part` and `centroid_part`, as many of them as the model has.
    """
    combined: Array = sum(parts, start=text)
    return combined


def free_part(free: Array, counts: Array) -> Array:
    """n / (n + ½) · free. free: (labels, dim); counts: (labels, 1), the n training queries of each label.

    What n examples say is trusted by n: a label without any is its text alone.
    """
    part: Array = counts / (counts + FREE_PRIOR) * free
    return part


def centroid_part(sums: Array, counts: Array) -> Array:
    """n / (n + 1) · unit(sum of the n query vectors of each label); sums: (labels, dim), counts: (labels, 1)."""
    part: Array = counts / (counts + CENTROID_PRIOR) * unit(sums)
    return part


def unit(vectors: Array) -> Array:
    """Rows (n, dim) brought to length 1; a row of zeros stays zero."""
    scaled: Array = vectors / ((vectors * vectors).sum(-1)[:, None] + 1e-24) ** 0.5
    return scaled


def unknown_rows(sums: NDArray[np.float32]) -> list[int]:
    """Rows of label sums (labels, dim) that are zero: labels of which nothing is known, to be hidden from search."""
    found: list[int] = np.flatnonzero(~np.any(sums, axis=1)).tolist()
    return found
