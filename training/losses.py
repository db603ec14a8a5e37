"""Losses over a pool of scores and a mask of positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def decoupled_softmax(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean over the queries of mean over their positives p of softplus(Z − s_p), Z = logsumexp over true negatives.

    Each positive competes with the query's negatives only, so no positive is ever pushed down (DEXML, ICLR 2024).
    scores: (queries, pool) float, already divided by the temperature; −inf leaves a label out. positive: the same
    shape, bool. A query without positives counts as 0; one without negatives has Z = −inf and so loss 0.
    """
    threshold = torch.logsumexp(scores.masked_fill(positive, -torch.inf), dim=1)  # (queries,)
    rows, columns = positive.nonzero(as_tuple=True)
    losses = functional.softplus(threshold[rows] - scores[rows, columns])  # (positives,)
    counts = positive.sum(dim=1)[rows]
    return (losses / counts).sum() / max(1, len(scores))
