"""An ONNX graph in the making: nodes in order, and constants by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Nodes:
    """Every node has one output, and a name made of its number."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}

    def add(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; the name of its output."""
        name = output or f"{operation}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[np.generic], name: str | None = None) -> str:
        """The name of a constant; equal ones without a name of their own are one."""
        name = name or f"{value.dtype}{list(value.shape)}:{value.ravel().tolist()}"
        self._constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        """The name of a list of int64."""
        return self.constant(np.array(values, dtype=np.int64))

    def number(self, value: float, kind: type[np.floating[Any]] = np.float32) -> str:
        """The name of a scalar."""
        return self.constant(np.array(value, dtype=kind))

    def columns(self, source: str, start: int, stop: int) -> str:
        """Append [start, stop) of the last axis of `source`."""
        return self.add("Slice", source, self.integers(start), self.integers(stop), self.integers(-1))

    @property
    def constants(self) -> list[TensorProto]:
        return list(self._constants.values())
