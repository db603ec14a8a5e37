"""The graphs of unified towers, alone and side by side, against torch and float64 NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from training.head import Head
from training.onnx_graph import write_graph, write_table

ROWS, DIM = 50, 12


def heads(count: int, hidden: int) -> list[Head]:
    made = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        head = Head(DIM, hidden, 0.5).eval()
        for parameter in head.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        made.append(head)
    return made


def tables(count: int) -> list[torch.Tensor]:
    return [torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(10 + seed)) for seed in range(count)]


def bags() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    random = np.random.default_rng(0)
    rows = random.integers(0, ROWS, (7, 5)).astype(np.int32)
    weights = random.random((7, 5)).astype(np.float32)
    weights[2, 2:] = 0.0
    weights[4] = 0.0  # an empty bag
    return rows, weights


def run(path: Path, rows: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["vectors"], {"rows": rows, "weights": weights})[0]
    return np.asarray(found)


@pytest.mark.parametrize("hidden", [0, 9])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 5, DIM])
def test_inner_products_are_the_mean_of_the_towers_cosines(count: int, hidden: int, width: int, tmp_path: Path) -> None:
    write_table(tmp_path / "shared.bin", tables(count))
    write_graph(tmp_path / "t.onnx", heads(count, hidden), ROWS, DIM, width, table="shared.bin")
    rows, weights = bags()
    found = run(tmp_path / "t.onnx", rows, weights)
    assert found.shape == (7, count * width)
    assert np.isfinite(found).all()
    parts = []
    for head, table in zip(heads(count, hidden), tables(count), strict=True):
        pooled = np.einsum("bl,bld->bd", weights.astype(np.float64), table.double().numpy()[rows])
        with torch.no_grad():
            vectors = head.double()(torch.from_numpy(pooled)).numpy()[:, :width]
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        parts.append(np.divide(vectors, length, where=length > 0, out=np.zeros_like(vectors)))
    assert np.abs(found - np.concatenate(parts, axis=1) / count**0.5).max() < 1e-5
    cosines = np.mean([part @ part.T for part in parts], axis=0)
    assert np.abs(found.astype(np.float64) @ found.T - cosines).max() < 1e-5


def test_no_text_and_no_feature_are_taken(tmp_path: Path) -> None:
    write_table(tmp_path / "table.bin", tables(2))
    write_graph(tmp_path / "t.onnx", heads(2, 9), ROWS, DIM, DIM)
    none = run(tmp_path / "t.onnx", np.zeros((0, 3), dtype=np.int32), np.zeros((0, 3), dtype=np.float32))
    assert none.shape == (0, 24)
    empty = run(tmp_path / "t.onnx", np.zeros((2, 1), dtype=np.int32), np.zeros((2, 1), dtype=np.float32))
    assert np.isfinite(empty).all()


def test_the_table_lies_row_by_row_with_the_towers_side_by_side(tmp_path: Path) -> None:
    write_table(tmp_path / "table.bin", tables(2))
    stored = np.fromfile(tmp_path / "table.bin", dtype="<f4").reshape(ROWS, 2 * DIM)
    assert np.array_equal(stored, np.concatenate([table.numpy() for table in tables(2)], axis=1))
