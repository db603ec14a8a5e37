"""Scores to probabilities: a monotone map fitted on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising piecewise-linear map from score to probability; `scores` and `probabilities` are its knots."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities in [0, 1], float32, of scores of any shape; flat beyond the outermost knots."""
        return np.interp(scores, self.scores, self.probabilities).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return {"scores": list(self.scores), "probabilities": list(self.probabilities)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        return cls(tuple(values["scores"]), tuple(values["probabilities"]))


IDENTITY = Calibration((0.0, 1.0), (0.0, 1.0))


def fit_calibration(scores: NDArray[np.float32], hits: NDArray[np.bool_], *, bins: int = 200) -> Calibration:
    """Isotonic regression by pool-adjacent-violators (Ayer et al. 1955) over at most `bins` equal-count bins.

    scores: (n,) of predicted labels on held-out rows; hits: (n,) whether each was right. Without any scores the map
    is the identity on [0, 1].
    """
    if not len(scores):
        return IDENTITY
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    blocks: list[tuple[float, float, float]] = []  # (sum of scores, hits, rows): a block's means are its knot
    for part in parts:
        blocks.append((float(scores[part].sum()), float(hits[part].sum()), float(len(part))))
        while len(blocks) > 1 and blocks[-1][1] * blocks[-2][2] <= blocks[-2][1] * blocks[-1][2]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append((last[0] + before[0], last[1] + before[1], last[2] + before[2]))
    knots = [(total / rows, hit / rows) for total, hit, rows in blocks]
    return Calibration(tuple(score for score, _ in knots), tuple(probability for _, probability in knots))
