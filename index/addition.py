"""The vector of a label that is added, edited or fed back while serving: the formula of training, without training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError
from index.label_vector import centroid_part, label_sum, unit
from index.packed import open_array

FILE = "addition.npy"
# Chosen on the dev splits of debian-depends, eurlex57k and clinc150 (`benchmarks/class_addition.py --split dev --ridge`
# repeats that for the ridge): with these the trained labels lose less than a point more than when all are trained, and
# a label with all of its examples is found as well as a trained one. A greater ridge finds labels of few examples
# better, and lets new labels crowd out the others.
RIDGE, VOTES = 1.0, 1.5
# What rounding leaves of a label's trained part where training gave it none.
_NOTHING = 1e-4
# Read at a time: a memory map may be larger than memory.
_BLOCK = 1 << 14


@dataclass(frozen=True, slots=True)
class Addition:
    """Settings of the formula, kept in the bundle's manifest.

    ridge: of the map that new labels go through (`measure_addition`), relative to the mean variance of a dimension; 0,
    as in bundles that do not say: they go through none, and are text ⊕ centroid. votes: how many times the example
    memory's votes for a new label count.
    """

    ridge: float = 0.0
    votes: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Addition:
        return cls(**values)


def measure_addition(
    examples: NDArray[np.float32], ridge: float = RIDGE
) -> tuple[Addition, NDArray[np.float32] | None]:
    """The settings, and the map (dim, dim) that the bundle keeps beside them; None without an example.

    examples: (n, dim), the training queries' unit vectors, may be a memory map. A trained label has been pushed away
    from what all queries have in common; a text vector or a centroid has not, is near every query, and takes the places
    of trained labels. The map is (C + g·tr(C)/dim·I)⁻¹, C the second moment of the queries: what least squares does to
    a centroid. The example part of a new label is then its column of ridge regression from queries to labels, at unit
    length (analytic class-incremental learning: ACIL, NeurIPS 2022; G-ACIL, arXiv 2403.15706): its sum of examples is
    exact, and C stays that of the training.
    """
    moments = _moments_of(examples)
    scale = float(np.trace(moments)) / max(1, len(moments))
    if not scale:
        return Addition(), None
    # To the size of the identity, so that float32 holds it well; only directions matter.
    found = _inverse(moments / scale, ridge) * (1.0 + ridge)
    return Addition(ridge, VOTES), found.astype(np.float32)


def write_addition(folder: Path, examples: NDArray[np.float32]) -> Addition:
    """`measure_addition`, the map written into the folder of a bundle."""
    settings, label_map = measure_addition(examples)
    if label_map is not None:
        np.save(folder / FILE, label_map)
    return settings


def open_map(folder: Path, settings: Addition, dim: int) -> NDArray[np.float32] | None:
    """The map of the bundle in `folder`; None where its settings ask for none. Raises BundleError for another width."""
    if not settings.ridge:
        return None
    found: NDArray[np.float32] = open_array(folder / FILE)
    if found.shape != (dim, dim):
        raise BundleError(f"{folder / FILE}: is {found.shape}, the vectors have {dim} dimensions; export it again")
    return found


def added_vectors(
    texts: NDArray[np.float32],
    trained: NDArray[np.float32],
    sums: NDArray[np.float64],
    counts: NDArray[np.float32],
    settings: Addition,
    label_map: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Unit label vectors (n, dim); zero where nothing is known of a label.

    texts: (n, dim) unit text vectors, zero without a text. trained: (n, dim), what training left of the label beside
    its text, zero for labels that it did not know: only these go through the map. sums, counts: (n, dim) and (n, 1), of
    the query vectors of its examples. label_map: of the bundle. (Pulling a new label towards the nearest trained ones,
    TEEN, NeurIPS 2023, gave new labels what it took from the old, and is left out.)
    """
    texts, sums = texts.copy(), sums.copy()
    if settings.ridge and label_map is not None:
        wide = np.asarray(label_map, dtype=np.float64)
        # One by one: how many come at once must not change a bit of any, or replays would differ.
        rows = np.flatnonzero(np.abs(trained).max(axis=1, initial=0.0) < _NOTHING)
        said, shown = np.zeros((len(rows), len(wide))), np.zeros((len(rows), len(wide)))
        for place, row in enumerate(rows.tolist()):
            said[place] = texts[row] @ wide
            if counts[row, 0]:
                shown[place] = sums[row] @ wide
        texts[rows], sums[rows] = unit(said), unit(shown)
    examples = centroid_part(sums, counts.astype(np.float64)).astype(np.float32)
    return np.asarray(unit(label_sum(texts, trained, examples)), dtype=np.float32)


def _inverse(moments: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """(A + g·I)⁻¹ of moments A (dim, dim), symmetric."""
    found = np.linalg.inv(moments + ridge * np.eye(len(moments)))
    return np.asarray((found + found.T) / 2.0)


def _moments_of(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Σ z zᵀ over the rows (n, dim), (dim, dim)."""
    total: NDArray[np.float64] = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), _BLOCK):
        part = np.asarray(vectors[start : start + _BLOCK], dtype=np.float64)
        total += part.T @ part
    return total
