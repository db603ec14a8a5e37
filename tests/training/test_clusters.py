"""Balanced clusters: sizes, every row once, the same again, and neighbours together."""

from __future__ import annotations

import numpy as np
import pytest

from training.clusters import balanced_clusters, cluster_size


def clusters(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]], size: int, seed: int = 0) -> list[list[int]]:
    return [rows.tolist() for rows in balanced_clusters(vectors, size, np.random.default_rng(seed))]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65, 129, 500])
def test_every_row_is_in_one_cluster_of_the_right_size(size: int, count: int) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, 5)).astype(np.float32)
    found = clusters(vectors, size)
    assert sorted(row for rows in found for row in rows) == list(range(count))
    sizes = [len(rows) for rows in found]
    assert max(sizes) <= size
    assert min(sizes) >= min(count, size / 2)
    assert found == clusters(vectors, size)
    if count <= size:
        assert len(found) == 1


def test_no_rows_make_no_cluster() -> None:
    assert clusters(np.zeros((0, 4), dtype=np.float32), 3) == []


def test_equal_rows_and_rows_of_zeros_are_shared_out_evenly() -> None:
    for vectors in (np.ones((37, 3), dtype=np.float32), np.zeros((37, 3), dtype=np.float32)):
        found = clusters(vectors, 5)
        assert sorted(row for rows in found for row in rows) == list(range(37))
        assert {len(rows) for rows in found} <= {3, 4, 5}


def test_near_vectors_end_together() -> None:
    random = np.random.default_rng(3)
    centres = np.linalg.qr(random.standard_normal((16, 16)))[0]
    group = random.permutation(np.repeat(np.arange(16), 8))
    vectors = (centres[group] + 0.01 * random.standard_normal((128, 16))).astype(np.float32)
    found = clusters(vectors, 8)
    assert len(found) == 16
    same = [float(np.mean([np.count_nonzero(group[rows] == group[row]) for row in rows])) for rows in found]
    # Two halves cut through a few groups; by chance a row would meet its group 1.4 times in 8.
    assert np.mean(same) > 6


def test_clusters_grow_from_the_first_epoch_to_the_last() -> None:
    assert [cluster_size(4, 64, epoch, 5) for epoch in range(5)] == [4, 8, 16, 32, 64]
    assert [cluster_size(3, 3, epoch, 4) for epoch in range(4)] == [3, 3, 3, 3]
    assert cluster_size(4, 64, 0, 1) == 4
    assert [cluster_size(1, 2, epoch, 2) for epoch in range(2)] == [1, 2]
