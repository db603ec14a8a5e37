"""Runs an exported tower: texts to unit vectors, through ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError, first_line
from index.features import Bags, Featurizer

# ONNX Runtime reports its use to its maker unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Padded cells (texts x longest bag) of one run: bounds memory at cells x dim floats.
_CELLS = 1 << 15


class Encoder:
    """One tower, from texts or bags to float32 unit vectors (n, dim)."""

    def __init__(self, graph: Path, featurizer: Featurizer, *, threads: int = 1) -> None:
        """Load `graph` (ONNX, inputs `rows` int32 and `weights` float32, both (batch, length)).

        Raises BundleError when the file is no such graph.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Lengths differ from call to call: keeping the largest block alive would only grow the process.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"{graph}: not a tower that can be run ({first_line(error)})") from error
        self.featurizer = featurizer
        self.dim = int(self._session.get_outputs()[0].shape[-1])

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (len(texts), dim); a text without a single word or digit gets the tower's default vector."""
        return self.bags(self.featurizer(texts))

    def bags(self, bags: Bags) -> NDArray[np.float32]:
        """Unit vectors (len(bags), dim) of featurised texts."""
        vectors = np.empty((len(bags), self.dim), dtype=np.float32)
        # Texts of like length run together, so that little of a batch is padding.
        order = np.argsort(bags.lengths, kind="stable")
        for part in _batches(bags.lengths[order]):
            texts = order[part]
            taken = bags if len(texts) == len(bags) == 1 else bags.take(texts)
            rows, weights = taken.padded(max(1, int(taken.lengths.max())))
            vectors[texts] = self._session.run(None, {"rows": rows, "weights": weights})[0]
        return vectors


def _batches(lengths: NDArray[np.int64]) -> list[slice]:
    """Cut ascending lengths into runs of at most _CELLS padded cells (or one text)."""
    batches, start = [], 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * int(lengths[stop]) <= _CELLS and stop - start < 4096:
            stop += 1
        batches.append(slice(start, stop))
        start = stop
    return batches
