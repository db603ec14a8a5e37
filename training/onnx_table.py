"""The exported table: its rows in a file beside the graphs that share it, at a chosen precision, and their look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from index.errors import InputError
from training.onnx_nodes import Nodes

TABLE_FILE = "table.bin"
FP32, FP16, INT8 = PRECISIONS = ("fp32", "fp16", "int8")
_STORED = {FP32: ("<f4", TensorProto.FLOAT), FP16: ("<f2", TensorProto.FLOAT16), INT8: ("<i1", TensorProto.INT8)}
# Of a page, so that each array can be mapped where it lies.
_ALIGNMENT = 4096
_LARGEST_INT8 = 127
_LARGEST_FP16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """What `write_table` has written, as the graphs see it: `table`, and `scales` and `attention` where there are any.

    arrays: external tensors.
    """

    precision: str
    arrays: tuple[TensorProto, ...]

    def sums(self, nodes: Nodes, rows: str, weights: str) -> str:
        """Append weighted sums of table rows: `rows` (batch, length) and `weights` (batch, slots, length) to (batch,
        slots, columns) float32."""
        if self.precision == INT8:
            scales = nodes.add("Gather", "scales", rows)  # (batch, length)
            weights = nodes.add("Mul", weights, nodes.add("Unsqueeze", scales, nodes.integers(1)))
        found = nodes.add("Gather", "table", rows)  # (batch, length, columns)
        if self.precision != FP32:
            found = nodes.add("Cast", found, to=TensorProto.FLOAT)
        return nodes.add("MatMul", weights, found)


def write_table(
    path: Path, tables: Sequence[Tensor], attention: Sequence[Tensor] = (), precision: str = FP32
) -> StoredTable:
    """Gated tables (rows, dim) side by side, little-endian, row by row; then, on pages of their own, the scales and the
    attention tables (rows, 8), side by side, too.

    precision: "fp32", "fp16", or "int8" with one float32 scale for each row of all tables, its largest number / 127.
    Raises InputError for another one, and for numbers that fp16 has not.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be one of {', '.join(PRECISIONS)}, is {precision!r}")
    together = torch.cat(list(tables), dim=1).numpy()
    arrays: dict[str, tuple[NDArray[np.generic], int]] = {}
    kind, element = _STORED[precision]
    if precision == INT8:
        scales = np.abs(together).max(axis=1, initial=0.0) / np.float32(_LARGEST_INT8)
        together = np.rint(together / np.where(scales > 0, scales, np.float32(1))[:, None])
        arrays["scales"] = scales.astype("<f4"), TensorProto.FLOAT
    elif precision == FP16 and np.abs(together).max(initial=0.0) > _LARGEST_FP16:
        raise InputError(
            f"precision: the table has numbers above {_LARGEST_FP16:.0f}, which fp16 cannot hold; take fp32"
        )
    arrays = {"table": (together.astype(kind), element), **arrays}
    if attention:
        arrays["attention"] = torch.cat(list(attention), dim=1).numpy().astype("<f4"), TensorProto.FLOAT
    found = []
    with path.open("wb") as file:
        for name, (values, kind_of) in arrays.items():
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            found.append(_external(name, path.name, file.tell(), values, kind_of))
            values.tofile(file)
    return StoredTable(precision, tuple(found))


def _external(name: str, file: str, start: int, values: NDArray[np.generic], kind: int) -> TensorProto:
    array = TensorProto(name=name, dims=values.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", str(start)), ("length", str(values.nbytes))):
        array.external_data.add(key=key, value=value)
    return array
