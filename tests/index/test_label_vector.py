"""The formula for label vectors, the same for NumPy and torch, against float64 loops."""

from __future__ import annotations

import numpy as np
import torch

from index.label_vector import centroid_part, free_part, label_sum, unit, unknown_rows

TEXT = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=np.float32)
FREE = np.array([[0.2, -0.4], [3.0, 1.0], [0.5, 0.5], [7.0, 7.0]], dtype=np.float32)
SUMS = np.array([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0], [1.0, 1.0]], dtype=np.float32)
COUNTS = np.array([[2.0], [1.0], [1000.0], [0.0]], dtype=np.float32)


def test_parts_are_trusted_by_the_number_of_examples() -> None:
    free, centroid = free_part(FREE, COUNTS), centroid_part(SUMS, COUNTS)
    for row in range(4):
        n = float(COUNTS[row, 0])
        assert np.allclose(free[row], n / (n + 0.5) * FREE[row].astype(np.float64), atol=1e-6)
        length = np.hypot(*SUMS[row].astype(np.float64))
        wanted = n / (n + 1) * SUMS[row] / length if length else np.zeros(2)
        assert np.allclose(centroid[row], wanted, atol=1e-6)
    summed = label_sum(TEXT, free, centroid)
    assert np.allclose(summed, TEXT.astype(np.float64) + free + centroid, atol=1e-6)
    assert np.allclose(summed[3], TEXT[3])
    assert np.array_equal(label_sum(TEXT), TEXT)
    assert np.array_equal(label_sum(TEXT, free), TEXT + free)


def test_torch_and_numpy_agree() -> None:
    text, free, sums, counts = (torch.from_numpy(array) for array in (TEXT, FREE, SUMS, COUNTS))
    found = unit(label_sum(text, free_part(free, counts), centroid_part(sums, counts))).numpy()
    wanted = unit(label_sum(TEXT, free_part(FREE, COUNTS), centroid_part(SUMS, COUNTS)))
    assert np.abs(found - wanted).max() < 1e-6
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_unit_of_zeros_huge_tiny_and_no_rows() -> None:
    vectors = np.array([[0, 0, 0], [1e15, 0, 0], [0, 1e-5, 0], [-3, 0, 4]], dtype=np.float32)
    wanted = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.6, 0, 0.8]])
    assert np.allclose(unit(vectors), wanted, atol=1e-5)
    assert unit(vectors[:0]).shape == (0, 3)
    zeros = torch.zeros(2, 3).requires_grad_()
    unit(zeros).sum().backward()  # type: ignore[no-untyped-call]
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


def test_rows_of_zeros_are_unknown() -> None:
    assert unknown_rows(TEXT) == [2]
    assert unknown_rows(np.zeros((2, 3), dtype=np.float32)) == [0, 1]
    assert unknown_rows(np.zeros((0, 3), dtype=np.float32)) == []
