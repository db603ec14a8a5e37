"""The file of the exported table: what lies where, and how far a precision is off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from index.errors import InputError
from training.onnx_table import write_table

ROWS, DIM = 50, 12


def tables(count: int) -> list[torch.Tensor]:
    return [torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(10 + seed)) for seed in range(count)]


def places(stored: object) -> dict[str, tuple[int, int]]:
    """Offset and length of each array."""
    arrays = getattr(stored, "arrays")  # noqa: B009
    said = {array.name: {entry.key: entry.value for entry in array.external_data} for array in arrays}
    return {name: (int(entry["offset"]), int(entry["length"])) for name, entry in said.items()}


def test_the_table_lies_row_by_row_with_the_towers_side_by_side(tmp_path: Path) -> None:
    stored = write_table(tmp_path / "table.bin", tables(2))
    wanted = np.concatenate([table.numpy() for table in tables(2)], axis=1)
    assert np.array_equal(np.fromfile(tmp_path / "table.bin", dtype="<f4").reshape(ROWS, 2 * DIM), wanted)
    assert places(stored) == {"table": (0, ROWS * 2 * DIM * 4)}


def test_half_precision_is_the_nearest_there_is(tmp_path: Path) -> None:
    write_table(tmp_path / "table.bin", tables(1), precision="fp16")
    kept = np.fromfile(tmp_path / "table.bin", dtype="<f2").reshape(ROWS, DIM)
    assert np.array_equal(kept, tables(1)[0].numpy().astype(np.float16))
    with pytest.raises(InputError, match="numbers above 65504, which fp16 cannot hold; take fp32"):
        write_table(tmp_path / "table.bin", [torch.full((1, 2), 7e4)], precision="fp16")


def test_whole_numbers_have_a_scale_for_each_row(tmp_path: Path) -> None:
    table = torch.cat(tables(2), dim=1)
    table[7] = 0.0
    table[8] *= 1e-20
    attention = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
    stored = write_table(tmp_path / "t.bin", [table], [attention], "int8")
    data = (tmp_path / "t.bin").read_bytes()

    def array(name: str, kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        start, length = places(stored)[name]
        assert start % 4096 == 0
        return np.frombuffer(data[start : start + length], dtype=kind).reshape(ROWS, -1)

    whole, scales = array("table", "<i1").astype(np.float64), array("scales", "<f4").astype(np.float64)
    assert scales[:, 0] == pytest.approx(np.abs(table.numpy()).max(axis=1) / 127)
    assert np.abs(whole).max() == 127
    assert (np.abs(whole * scales - table.double().numpy()) <= 0.501 * scales).all()
    assert np.array_equal(array("attention", "<f4"), attention.numpy())


def test_another_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision: must be one of fp32, fp16, int8, is 'fp8'"):
        write_table(tmp_path / "table.bin", tables(1), precision="fp8")
    assert not (tmp_path / "table.bin").exists()
