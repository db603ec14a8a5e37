"""Trained unified towers as ONNX graphs over padded bags and histories; several towers side by side in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper
from torch import Tensor

from training.dense import Dense
from training.head import Head
from training.history_attention import ATTENTION_DIM, NEWEST, HistoryAttention
from training.onnx_nodes import Nodes
from training.onnx_table import FP32, TABLE_FILE, StoredTable, write_table

_OPSET = 20
_IR = 10


@dataclass(frozen=True, slots=True)
class TowerParts:
    """A trained tower. table: (rows, row), the gates multiplied in. attention: (rows, 8), or without rows where no
    field is a history. All towers of a graph have dense parts of the same shapes."""

    dense: Dense
    table: Tensor
    attention: Tensor


def write_towers(
    folder: Path,
    names: Sequence[str],
    towers: Sequence[TowerParts],
    width: int,
    *,
    table: str = TABLE_FILE,
    precision: str = FP32,
) -> None:
    """Write `{name}.onnx`, the same graph for every name, and the file `table` that they and all processes share.

    precision: of the table (training.onnx_table.write_table). Raises InputError for another one than these.
    """
    attention = [tower.attention for tower in towers if len(tower.attention)]
    stored = write_table(folder / table, [tower.table for tower in towers], attention, precision)
    for name in names:
        write_graph(folder / f"{name}.onnx", [tower.dense for tower in towers], stored, width)


def write_graph(path: Path, towers: Sequence[Dense], stored: StoredTable, width: int) -> None:
    """Write towers as one, to `vectors` (batch, towers x width) float32.

    Inputs are `rows` int32 (batch, length) and `weights` float32, (batch, slots, length), or (batch, length) where
    there is one slot, and for the i-th history field `history{i}.rows` int32 and `history{i}.mask` float32 (batch,
    its length). Padding is any row with weight or mask 0; a mask's ones come first. The operations are those of
    `Dense.forward` after the weighted sums, then the leading `width` dimensions of each tower at length 1/√towers: the
    inner product of two vectors is the mean of the towers' cosines.
    """
    nodes, first, count = Nodes(), towers[0], len(towers)
    weights = "weights" if first.slots > 1 else nodes.add("Unsqueeze", "weights", nodes.integers(1))
    sums = stored.sums(nodes, "rows", weights)  # (batch, slots, towers x row)
    if first.reader is not None:
        total = nodes.add("ReduceSum", weights, nodes.integers(2), keepdims=1)  # (batch, slots, 1)
        empty = nodes.add("Equal", total, nodes.number(0.0))
        sums = nodes.add("Div", sums, nodes.add("Where", empty, nodes.number(1.0), total))
    outputs = []
    for place, tower in enumerate(towers):
        own = slice(place * first.row, (place + 1) * first.row)
        slots = sums if count == 1 else nodes.columns(sums, own.start, own.stop)
        histories = [
            _history(nodes, attention, stored, f"tower{place}.history{number}", place, own if count > 1 else None)
            for number, attention in enumerate(tower.attentions)
        ]
        vectors = _head(nodes, tower.head, _pooled(nodes, tower, slots, histories, place), f"tower{place}.")
        if width < tower.dim:
            vectors = nodes.add("LpNormalization", nodes.columns(vectors, 0, width), axis=-1, p=2)
        outputs.append(vectors)
    if count == 1:
        nodes.add("Identity", *outputs, output="vectors")
    else:
        together = nodes.add("Concat", *outputs, axis=-1)
        nodes.add("Mul", together, nodes.number(count**-0.5), output="vectors")
    graph = helper.make_graph(
        nodes.nodes,
        "unified_tower",
        _inputs(first),
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", count * width])],
        [*stored.arrays, *nodes.constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))  # by path, for the table lies beside it


def _inputs(tower: Dense) -> list[ValueInfoProto]:
    slots = [tower.slots] if tower.slots > 1 else []
    inputs = [
        helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", "length"]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", *slots, "length"]),
    ]
    for number in range(len(tower.histories)):
        name, shape = f"history{number}", ("batch", f"length{number}")
        inputs.append(helper.make_tensor_value_info(f"{name}.rows", TensorProto.INT32, shape))
        inputs.append(helper.make_tensor_value_info(f"{name}.mask", TensorProto.FLOAT, shape))
    return inputs


def _pooled(nodes: Nodes, tower: Dense, slots: str, histories: Sequence[str], place: int) -> str:
    """Append what is before the head, (batch, dim): slots (batch, slots, row), histories (batch, 1, row) each."""
    if tower.reader is not None:
        together = nodes.add("Concat", slots, *histories, axis=1) if histories else slots
        linear = tower.reader.linear
        flat = nodes.add("Flatten", together, axis=1)
        weight, bias = (
            nodes.constant(value.detach().numpy(), f"tower{place}.reader.{name}")
            for name, value in (("weight", linear.weight), ("bias", linear.bias))
        )
        return nodes.add("Gemm", flat, weight, bias, transB=1)
    if tower.shares is not None:
        for share, history in zip(tower.shares.detach().tolist(), histories, strict=True):
            slots = nodes.add("Add", slots, nodes.add("Mul", history, nodes.number(share)))
    return nodes.add("Squeeze", slots, nodes.integers(1))


def _history(
    nodes: Nodes, attention: HistoryAttention, stored: StoredTable, name: str, place: int, own: slice | None
) -> str:
    """Append one tower's sum (batch, 1, row) of one history; scores in double, as `HistoryAttention.choose` says.

    own: the tower's columns of the table, None for all of them.
    """
    rows, mask = (f"{name.partition('.')[2]}.{part}" for part in ("rows", "mask"))
    found = nodes.add("Gather", "attention", rows)  # (batch, length, towers x 8)
    if own is not None:
        found = nodes.columns(found, place * ATTENTION_DIM, (place + 1) * ATTENTION_DIM)
    keys = nodes.add("Cast", found, to=TensorProto.DOUBLE)
    there = nodes.add("Cast", mask, to=TensorProto.DOUBLE)
    last = nodes.integers(1)
    count = nodes.add("ReduceSum", there, last, keepdims=1)  # (batch, 1)
    ages = nodes.add("Sub", count, nodes.add("CumSum", there, nodes.constant(np.array(1, dtype=np.int64))))
    new = nodes.add("Cast", nodes.add("Less", ages, nodes.number(NEWEST, np.float64)), to=TensorProto.DOUBLE)
    new = nodes.add("Mul", new, there)
    many = nodes.add("Max", nodes.add("ReduceSum", new, last, keepdims=1), nodes.number(1.0, np.float64))
    mean = nodes.add("MatMul", nodes.add("Unsqueeze", nodes.add("Div", new, many), last), keys)  # (batch, 1, 8)
    learned = attention.query.detach().double().numpy()
    query = nodes.add("Add", mean, nodes.constant(learned, f"{name}.query"))
    query = nodes.add("Div", query, nodes.number(ATTENTION_DIM**0.5, np.float64))
    scores = nodes.add("MatMul", query, nodes.add("Transpose", keys, perm=[0, 2, 1]))  # (batch, 1, length)
    scores = nodes.add("Squeeze", scores, last)
    past = nodes.add("Log", nodes.add("Add", ages, nodes.number(1.0, np.float64)))
    slope = nodes.constant(attention.slope.detach().double().numpy(), f"{name}.slope")
    scores = nodes.add("Sub", scores, nodes.add("Mul", past, slope))
    here = nodes.add("Greater", there, nodes.number(0.0, np.float64))
    scores = nodes.add("Where", here, scores, nodes.number(-1e30, np.float64))
    length = nodes.add("Gather", nodes.add("Shape", scores), last)
    most = nodes.add("Min", length, nodes.integers(attention.top))
    best, where = f"{name}.best", f"{name}.where"
    nodes.nodes.append(helper.make_node("TopK", [scores, most], [best, where], axis=1))
    shares = nodes.add("Softmax", nodes.add("Cast", best, to=TensorProto.FLOAT), axis=1)
    shares = nodes.add("Mul", shares, nodes.add("GatherElements", mask, where, axis=1))
    chosen = nodes.add("GatherElements", rows, where, axis=1)
    sums = stored.sums(nodes, chosen, nodes.add("Unsqueeze", shares, last))
    return sums if own is None else nodes.columns(sums, own.start, own.stop)


def _head(nodes: Nodes, head: Head, pooled: str, prefix: str) -> str:
    """Append one tower's head; the name of its unit vectors (batch, dim)."""
    unit = nodes.add("LpNormalization", pooled, axis=-1, p=2)
    if not head.hidden:
        return unit
    weight = {
        name: nodes.constant(value.detach().numpy(), f"{prefix}head.{name}") for name, value in head.named_parameters()
    }
    direction = nodes.add("Mul", unit, nodes.number(head.norm.normalized_shape[0] ** 0.5))
    normed = nodes.add(
        "LayerNormalization", direction, weight["norm.weight"], weight["norm.bias"], epsilon=head.norm.eps
    )
    wide = nodes.add("Gemm", normed, weight["widen.weight"], weight["widen.bias"], transB=1)
    narrow = nodes.add("Gemm", nodes.add("Gelu", wide), weight["narrow.weight"], weight["narrow.bias"], transB=1)
    return nodes.add("LpNormalization", nodes.add("Add", direction, narrow), axis=-1, p=2)
