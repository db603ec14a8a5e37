"""The trained tower as an ONNX graph over padded bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from training.dual_encoder import Head

TABLE_FILE = "table.bin"
_OPSET = 20
_IR = 10


def write_table(folder: Path, table: Tensor) -> None:
    """The gated table (rows, dim) as raw little-endian float32, beside the graphs that share it."""
    table.numpy().astype("<f4").tofile(folder / TABLE_FILE)


def write_graph(path: Path, head: Head, table_shape: tuple[int, int]) -> None:
    """Write the tower: `rows` int32 and `weights` float32, both (batch, length), to `vectors` (batch, dim) float32.

    The table lies in TABLE_FILE beside the graph, so that several graphs, and several processes, share its pages.
    Padding is any row with weight 0. The operations are those of `Head.forward` after the weighted sum.
    """
    dim = table_shape[1]
    weights = {name: value.detach().numpy() for name, value in head.named_parameters()}
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["gathered"]),  # (batch, length, dim)
        helper.make_node("Unsqueeze", ["weights", "axis_1"], ["as_row"]),  # (batch, 1, length)
        helper.make_node("MatMul", ["as_row", "gathered"], ["summed"]),  # (batch, 1, dim)
        helper.make_node("Squeeze", ["summed", "axis_1"], ["pooled"]),  # (batch, dim)
        helper.make_node("LpNormalization", ["pooled"], ["pooled_unit"], axis=-1, p=2),
        helper.make_node("Mul", ["pooled_unit", "length"], ["direction"]),
        helper.make_node(
            "LayerNormalization", ["direction", "norm.weight", "norm.bias"], ["normed"], epsilon=head.norm.eps
        ),
        helper.make_node("Gemm", ["normed", "widen.weight", "widen.bias"], ["widened"], transB=1),
        helper.make_node("Gelu", ["widened"], ["activated"]),
        helper.make_node("Gemm", ["activated", "narrow.weight", "narrow.bias"], ["narrowed"], transB=1),
        helper.make_node("Add", ["direction", "narrowed"], ["output"]),
        helper.make_node("LpNormalization", ["output"], ["vectors"], axis=-1, p=2),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        **weights,
        "axis_1": np.array([1], dtype=np.int64),
        "length": np.array(dim**0.5, dtype=np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "unified_tower",
        [
            helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "length"]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", dim])],
        [_table(table_shape), *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))  # by path, for the table lies beside it


def _table(shape: tuple[int, int]) -> TensorProto:
    table = TensorProto(name="table", dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", TABLE_FILE), ("offset", "0"), ("length", str(shape[0] * shape[1] * 4))):
        table.external_data.add(key=key, value=value)
    return table
