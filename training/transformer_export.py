"""The trained transformer tower as an ONNX graph over padded tokens, and bags where it reads fields."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn
from torch.nn import functional

from training.transformer_network import Network

_OPSET = 20
# Smaller constants stay in the graph.
_LEAST_BYTES = 1024
# Of a page, so that each array can be mapped where it lies.
_ALIGNMENT = 4096


class _Beside(nn.Module):
    """The vectors of several networks side by side, each cut to `width` and brought to length 1/√n.

    tables: of the fields, one (rows, dim) for each network, or none; their rows are added before the cut.
    """

    def __init__(self, networks: Sequence[Network], width: int, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self.networks, self.width = nn.ModuleList(networks), width
        self.tables = nn.ParameterList(nn.Parameter(table, requires_grad=False) for table in tables)

    def forward(self, ids: Tensor, mask: Tensor, rows: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        vectors = [network(ids, mask) for network in self.networks]
        if rows is not None and weights is not None:
            for place, table in enumerate(self.tables):
                gathered = functional.embedding(rows.long(), table)  # (batch, features, dim)
                pooled = torch.bmm(weights[:, None, :], gathered)[:, 0]  # (batch, dim)
                vectors[place] = functional.normalize(vectors[place] + pooled, dim=1)
        cut = [functional.normalize(part[:, : self.width], dim=1) for part in vectors]
        beside: Tensor = torch.cat(cut, dim=1) / len(cut) ** 0.5
        return beside


def write_transformer(
    folder: Path, names: Sequence[str], networks: Sequence[Network], width: int, tables: Sequence[Tensor] = ()
) -> None:
    """Write `{name}.onnx`, the same graph for every name: `input_ids` and `attention_mask` int64, both (batch, length),
    to `vectors` (batch, width · networks) float32 of unit length.

    networks: on the CPU, in evaluation mode, without LoRA, as training.transformer_network.merged makes them. tables:
    of the fields, one (rows, dim) for each network, or none; with them the graph also takes `rows` int32 and `weights`
    float32, both (batch, features).
    The weights go into a file beside the graphs that is named by their digest; where it is there already, it is shared.
    """
    model = _traced(_Beside(networks, width, tables).eval(), fields=bool(tables))
    large = [array for array in model.graph.initializer if len(array.raw_data) >= _LEAST_BYTES]
    digest = hashlib.sha256()
    for array in large:
        digest.update(array.raw_data)
    weights = folder / f"weights-{digest.hexdigest()[:16]}.bin"
    if not weights.exists():
        with weights.open("wb") as file:
            for array in large:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT) + array.raw_data)
    start = 0
    for array in large:
        length = len(array.raw_data)
        _move_out(array, weights.name, start)
        start += length + -(start + length) % _ALIGNMENT
    for name in names:
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path))  # by path, for the weights lie beside it


def _traced(network: nn.Module, *, fields: bool) -> ModelProto:
    """The graph, with batch, length and features left open.

    Through torch.export: the older exporter, which records one run, fixes the attention mask of the texts that it saw.
    """
    ids = torch.ones(2, 3, dtype=torch.int64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    free = [{0: "batch", 1: "length"}] * 2
    if fields:
        inputs |= {"rows": torch.zeros(2, 4, dtype=torch.int32), "weights": torch.ones(2, 4)}
        free += [{0: "batch", 1: "features"}] * 2
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _without_log():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=_OPSET,
            dynamic_shapes=tuple(free),
            input_names=list(inputs),
            output_names=["vectors"],
            verbose=False,
        )
    assert program is not None  # noqa: S101 - without a file name the program is returned
    model: ModelProto = program.model_proto
    # What the exporter notes of each node (the lines of source that it came from) is of no use to a run.
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _move_out(array: TensorProto, file: str, start: int) -> None:
    """Replace an array's bytes by the place where they are."""
    for key, value in (("location", file), ("offset", str(start)), ("length", str(len(array.raw_data)))):
        array.external_data.add(key=key, value=value)
    array.data_location = TensorProto.EXTERNAL
    array.ClearField("raw_data")


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
