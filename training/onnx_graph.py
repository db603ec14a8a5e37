"""Trained unified towers as ONNX graphs over padded bags; several towers side by side in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from training.head import Head

TABLE_FILE = "table.bin"
_OPSET = 20
_IR = 10


def write_table(path: Path, tables: Sequence[Tensor]) -> None:
    """Gated tables (rows, dim) side by side as raw little-endian float32, beside the graphs that share them."""
    torch.cat(list(tables), dim=1).numpy().astype("<f4").tofile(path)


def write_graph(path: Path, heads: Sequence[Head], rows: int, dim: int, width: int, *, table: str = TABLE_FILE) -> None:
    """Write towers as one: `rows` int32, `weights` float32 (batch, length) to `vectors` (batch, towers x width).

    table: the file beside the graph with `rows` rows of towers x dim numbers, so that several graphs, and several
    processes, share its pages. Padding is any row with weight 0. The operations are those of `Head.forward` after the
    weighted sum, then the leading `width` dimensions of each tower at length 1/√towers: the inner product of two
    vectors is the mean of the towers' cosines.
    """
    count = len(heads)
    constants: dict[str, NDArray[np.generic]] = {"axis_1": np.array([1], dtype=np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["gathered"]),  # (batch, length, towers x dim)
        helper.make_node("Unsqueeze", ["weights", "axis_1"], ["as_row"]),  # (batch, 1, length)
        helper.make_node("MatMul", ["as_row", "gathered"], ["summed"]),  # (batch, 1, towers x dim)
        helper.make_node("Squeeze", ["summed", "axis_1"], ["pooled"]),
    ]
    outputs = []
    for place, head in enumerate(heads):
        source = "pooled" if count == 1 else _cut(nodes, constants, "pooled", place * dim, (place + 1) * dim)
        source = _head(nodes, constants, head, source, f"tower{place}.", dim)
        if width < dim:
            source = _cut(nodes, constants, source, 0, width)
            nodes.append(helper.make_node("LpNormalization", [source], [f"{source}.unit"], axis=-1, p=2))
            source = f"{source}.unit"
        outputs.append(source)
    if count == 1:
        nodes.append(helper.make_node("Identity", outputs, ["vectors"]))
    else:
        constants["share"] = np.array(count**-0.5, dtype=np.float32)
        nodes.append(helper.make_node("Concat", outputs, ["together"], axis=-1))
        nodes.append(helper.make_node("Mul", ["together", "share"], ["vectors"]))
    graph = helper.make_graph(
        nodes,
        "unified_tower",
        [
            helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", "length"]),
        ],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", count * width])],
        [
            _external(table, (rows, count * dim)),
            *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))  # by path, for the table lies beside it


def _head(
    nodes: list[NodeProto], constants: dict[str, NDArray[np.generic]], head: Head, pooled: str, prefix: str, dim: int
) -> str:
    """Append one tower's dense part; the name of its unit vectors (batch, dim)."""
    n = {name: prefix + name for name in ("unit", "direction", "normed", "wide", "active", "narrow", "sum", "out")}
    nodes.append(helper.make_node("LpNormalization", [pooled], [n["unit"]], axis=-1, p=2))
    if not head.hidden:
        return n["unit"]
    weights = {prefix + name: value.detach().numpy() for name, value in head.named_parameters()}
    constants.update(weights)
    constants[f"{prefix}length"] = np.array(dim**0.5, dtype=np.float32)
    norm, widen, narrow = ([f"{prefix}{part}.weight", f"{prefix}{part}.bias"] for part in ("norm", "widen", "narrow"))
    nodes += [
        helper.make_node("Mul", [n["unit"], f"{prefix}length"], [n["direction"]]),
        helper.make_node("LayerNormalization", [n["direction"], *norm], [n["normed"]], epsilon=head.norm.eps),
        helper.make_node("Gemm", [n["normed"], *widen], [n["wide"]], transB=1),
        helper.make_node("Gelu", [n["wide"]], [n["active"]]),
        helper.make_node("Gemm", [n["active"], *narrow], [n["narrow"]], transB=1),
        helper.make_node("Add", [n["direction"], n["narrow"]], [n["sum"]]),
        helper.make_node("LpNormalization", [n["sum"]], [n["out"]], axis=-1, p=2),
    ]
    return n["out"]


def _cut(nodes: list[NodeProto], constants: dict[str, NDArray[np.generic]], source: str, start: int, stop: int) -> str:
    """Append columns [start, stop) of `source`; their name."""
    name = f"{source}.{start}-{stop}"
    constants[f"{name}.start"], constants[f"{name}.stop"] = np.array([start]), np.array([stop])
    nodes.append(helper.make_node("Slice", [source, f"{name}.start", f"{name}.stop", "axis_1"], [name]))
    return name


def _external(file: str, shape: tuple[int, int]) -> TensorProto:
    table = TensorProto(name="table", dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", "0"), ("length", str(shape[0] * shape[1] * 4))):
        table.external_data.add(key=key, value=value)
    return table
