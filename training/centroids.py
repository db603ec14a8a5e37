"""What a label's training queries say of it: the sum of their vectors as they were when last encoded."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from index.packed import spans


class Centroids:
    """vectors: (queries, dim), each query's unit vector of the last step that it was in; sums: (labels, dim) over them.

    A query must not meet itself in the centroid of its own label, or the score of every positive would be nearly 1 in
    training and not in use: `without` gives the sums as if a label had never had the query (leave one out).
    """

    def __init__(self, relevance: csr_matrix, dim: int) -> None:
        self.relevance = relevance
        self.vectors = torch.zeros(relevance.shape[0], dim)
        self.sums = torch.zeros(relevance.shape[1], dim)

    def update(self, queries: NDArray[np.int64], vectors: Tensor) -> None:
        """Replace the vectors of these queries (n,), each named once, by `vectors` (n, dim)."""
        rows = torch.from_numpy(queries)
        change = vectors.detach().to(self.vectors) - self.vectors[rows]
        lengths = np.diff(self.relevance.indptr)[queries].astype(np.int64)
        links = spans(self.relevance.indptr[queries].astype(np.int64), lengths)
        labels = torch.from_numpy(self.relevance.indices[links].astype(np.int64))
        self.sums.index_add_(0, labels, change.repeat_interleave(torch.from_numpy(lengths), dim=0))
        self.vectors[rows] += change

    def without(self, labels: Tensor, queries: Tensor) -> Tensor:
        """Sums (n, dim) of `labels` (n,) without the one query of `queries` (n,) that belongs to each."""
        return self.sums[labels] - self.vectors[queries]
