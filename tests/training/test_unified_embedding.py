"""The hand-written bag sum and row-wise Adagrad against plain torch and float64 NumPy."""

from __future__ import annotations

import numpy as np
import torch

from index.bags import Bags
from training.row_adagrad import RowAdagrad
from training.unified_embedding import Lookup, UnifiedEmbedding

BAGS = Bags(
    np.array([0, 3, 3, 4, 8], dtype=np.int64),
    np.array([1, 5, 9, 5, 0, 1, 9, 11], dtype=np.int32),
    np.array([1.0, 2.0, 0.5, 3.0, 1.0, 1.5, 2.5, 1.0], dtype=np.float32),
)


def dense(bags: Bags, rows: int, keep: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None) -> torch.Tensor:
    matrix = torch.zeros(len(bags), rows, dtype=torch.float64)
    for bag, (start, stop) in enumerate(zip(bags.offsets[:-1], bags.offsets[1:], strict=True)):
        for link in range(start, stop):
            if keep is None or keep[link]:
                matrix[bag, int(bags.rows[link])] += float(bags.weights[link])
    return matrix


def test_pooling_and_its_gradients_equal_a_dense_product() -> None:
    keep = np.array([True, True, False, True, True, False, True, True])
    for mask in (None, keep):
        embedding = UnifiedEmbedding(12, 4, torch.Generator().manual_seed(0))
        embedding.gates.uniform_(-1, 1)
        lookup = Lookup.of(BAGS, mask)
        rows, gates = embedding.touched(lookup)
        pooled = embedding.pooled(lookup, rows, gates)
        target = torch.arange(16.0).reshape(4, 4)
        (pooled * target).sum().backward()  # type: ignore[no-untyped-call]

        table = embedding.table.double().requires_grad_()
        all_gates = embedding.gates.double().requires_grad_()
        wanted = dense(BAGS, 12, mask) @ (table * all_gates.exp()[:, None])
        (wanted * target.double()).sum().backward()  # type: ignore[no-untyped-call]

        assert torch.allclose(pooled.double(), wanted, atol=1e-6)
        assert table.grad is not None
        assert all_gates.grad is not None
        assert rows.grad is not None
        assert gates.grad is not None
        assert torch.allclose(rows.grad.double(), table.grad[lookup.rows], atol=1e-5)
        assert torch.allclose(gates.grad.double(), all_gates.grad[lookup.rows], atol=1e-4)
        untouched = torch.ones(12, dtype=torch.bool)
        untouched[lookup.rows] = False
        assert not table.grad[untouched].any()
        assert torch.allclose(embedding.folded()[lookup.rows], (rows * gates.exp()[:, None]).detach())


def test_a_batch_of_empty_bags_is_zero() -> None:
    nothing = Bags(np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    embedding = UnifiedEmbedding(4, 3, torch.Generator().manual_seed(0))
    lookup = Lookup.of(nothing)
    rows, gates = embedding.touched(lookup)
    pooled = embedding.pooled(lookup, rows, gates)
    assert pooled.tolist() == [[0.0] * 3] * 2
    pooled.sum().backward()  # type: ignore[no-untyped-call]


def test_row_adagrad_equals_float64_numpy_over_several_steps() -> None:
    random = np.random.default_rng(0)
    for shape in ((6, 5), (6,)):
        start = random.standard_normal(shape).astype(np.float32)
        optimiser = RowAdagrad(torch.from_numpy(start.copy()), 0.3)
        wanted, sums = start.astype(np.float64), np.zeros(6)
        for step in range(4):
            rows = np.sort(random.choice(6, 3, replace=False))
            gradient = random.standard_normal((3, *shape[1:]))
            optimiser.step(torch.from_numpy(rows), torch.from_numpy(gradient.astype(np.float32)), 1.0 - step / 10)
            sums[rows] += (gradient**2).reshape(3, -1).mean(axis=1)
            rate = 0.3 * (1.0 - step / 10) / np.sqrt(sums[rows])
            wanted[rows] -= gradient * rate.reshape(3, *[1] * (len(shape) - 1))
        assert np.allclose(optimiser.parameter.numpy(), wanted, atol=1e-5)
