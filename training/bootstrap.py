"""Bootstrap confidence intervals: how far a figure would move on other test rows of the same kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.metrics import RowParts

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK_NUMBERS = 1 << 22

_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, fractions."""

    low: float
    high: float


def percentile_intervals(
    figures: Mapping[_Name, RowParts], *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[_Name, Interval]:
    """Percentile bootstrap (Efron 1979) over rows: each figure's interval at `level`, by the figure's name.

    figures: parts over the same n rows, which are drawn together, so that the figures stay comparable. A resample in
    which no row counts for a figure is left out of that figure's; a figure that no row counts for gets no interval.
    """
    figures = {name: parts for name, parts in figures.items() if parts.of.any()}
    if not figures or resamples < 1:
        return {}
    won = np.stack([parts.won for parts in figures.values()], axis=1)  # (n, figures)
    of = np.stack([parts.of for parts in figures.values()], axis=1)
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // len(won))
    drawn = []
    for start in range(0, resamples, block):
        counts = _draw_counts(random, min(block, resamples - start), len(won))
        whole = counts @ of  # (resamples, figures)
        drawn.append(np.divide(counts @ won, whole, out=np.full_like(whole, np.nan), where=whole > 0))
    return {name: _interval(column, level) for name, column in zip(figures, np.concatenate(drawn).T, strict=True)}


def _draw_counts(random: np.random.Generator, resamples: int, rows: int) -> NDArray[np.float64]:
    """How often each resample of `rows` rows, drawn with replacement, has each row: (resamples, rows)."""
    picked = random.integers(0, rows, size=(resamples, rows)) + np.arange(resamples)[:, None] * rows
    counts = np.bincount(picked.ravel(), minlength=resamples * rows)
    return counts.reshape(resamples, rows).astype(np.float64)


def _interval(figures: NDArray[np.float64], level: float) -> Interval:
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        # One row of very many, never drawn: nothing is known about the figure.
        return Interval(0.0, 1.0)
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
