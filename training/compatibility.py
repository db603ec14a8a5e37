"""The loss that keeps a new query tower's vectors near those of the tower that is served.

Method: higher-order compatibility of stationary representations (Biondi et al., CVPR 2024), which beside each vector's
own distance from its earlier one keeps it apart from the earlier vectors of other labels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from training.config import CompatibleConfig
from training.distributed import World


class Compatibility:
    """old: (queries, dim), unit vectors of the training queries by the served tower. relevance: (queries, labels)."""

    def __init__(
        self, config: CompatibleConfig, old: NDArray[np.float32], relevance: csr_matrix, world: World | None = None
    ) -> None:
        self.config, self.relevance, self.world = config, relevance, world or World()
        self.old = torch.from_numpy(old)

    def mixed(self, loss: Tensor, queries: NDArray[np.int64], vectors: Tensor) -> Tensor:
        """(1 − weight) · loss + weight · the mean of this term over these queries (b,), whose new vectors are (b, dim).

        Of several processes each adds the part of its own queries, as `loss` is that part.
        """
        part, weight = self.world.part(len(queries)), self.config.weight
        labels = self.relevance[queries]
        same = torch.from_numpy((labels[part] @ labels.T).toarray() > 0).to(vectors.device)
        old = self.old[torch.from_numpy(queries[part])].to(vectors)
        term = higher_order_loss(old, vectors, same, part.start, self.config.sharpness)
        return (1 - weight) * loss + weight * term.sum() / max(len(queries), 1)


def higher_order_loss(old: Tensor, new: Tensor, same: Tensor, first: int, sharpness: float) -> Tensor:
    """(n,): −μ ⟨old_i, new_i⟩ + ln Σ_j exp(μ ⟨old_i, new_j⟩) over the queries j that share no label with query i.

    old: (n, dim), of the queries `first` and those that follow of all b, whose new vectors are (b, dim). same: (n, b)
    bool, whether two share a label. sharpness: μ. Where all share a label, the sum is left out.
    """
    cosines = sharpness * old @ new.T  # (n, b)
    own = cosines.diagonal(first)
    alone = same.all(dim=1)
    # A row of nothing but −∞ would have no gradient that is a number.
    others = cosines.masked_fill(same & ~alone[:, None], -torch.inf).logsumexp(dim=1)
    return torch.where(alone, 0.0, others) - own
