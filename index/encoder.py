"""Runs an exported tower: texts and fields to unit vectors, through ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags
from index.errors import BundleError, InputError, first_line
from index.features import Featurizer
from index.fielded import FieldedTokenizer, FieldedTokens
from index.fields import Fields
from index.tokens import Tokenizer, Tokens, length_runs

# ONNX Runtime reports its use to its maker unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Padded cells (texts x longest bag or text) of one run: bounds memory at cells x dim floats, and for tokens at
# cells x the width of the transformer's widest layer, where more at once would not be faster.
_CELLS = 1 << 15
_TOKEN_CELLS = 1 << 12
_BAG_INPUTS = ("rows", "weights")
_TOKEN_INPUTS = ("input_ids", "attention_mask")


class Encoder:
    """One tower, from texts, bags or tokens to float32 unit vectors (n, dim)."""

    def __init__(self, graph: Path, featurizer: Featurizer | Tokenizer | FieldedTokenizer, *, threads: int = 1) -> None:
        """Load `graph` (ONNX), whose inputs are what `Bags.padded` or `Tokens.padded` gives, each (batch, length).

        These are `rows` int32 and `weights` float32, or `input_ids` and `attention_mask` int64, or all four, the bags
        being those of the fields. Raises BundleError when the file is no such graph.
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
        self._cells = _CELLS if isinstance(featurizer, Featurizer) else _TOKEN_CELLS
        wanted = _inputs_of(featurizer)
        found = sorted(value.name for value in self._session.get_inputs())
        if found != sorted(wanted):
            raise BundleError(f"{graph}: takes {', '.join(found)}, not {' and '.join(wanted)}; export it again")
        self.featurizer = featurizer
        self.dim = int(self._session.get_outputs()[0].shape[-1])

    def texts(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> NDArray[np.float32]:
        """Unit vectors (len(texts), dim); a text without a single word or digit gets the tower's default vector.

        fields: those of each text, or None. Raises InputError naming a field that the tower does not read.
        """
        if fields is None or not any(fields):
            return self.items(self.featurizer(texts))
        if isinstance(self.featurizer, Tokenizer):
            raise InputError("this model reads no fields; leave them out")
        return self.items(self.featurizer(texts, fields))

    def items(self, items: Bags | Tokens | FieldedTokens) -> NDArray[np.float32]:
        """Unit vectors (len(items), dim) of what the featurizer made of texts."""
        vectors = np.empty((len(items), self.dim), dtype=np.float32)
        # Texts of like length run together, so that little of a batch is padding.
        order = np.argsort(items.lengths, kind="stable")
        for part in length_runs(items.lengths[order], self._cells):
            texts = order[part]
            taken = items if len(texts) == len(items) == 1 else items.take(texts)
            vectors[texts] = self._session.run(None, _padded(taken))[0]
        return vectors


def _inputs_of(featurizer: Featurizer | Tokenizer | FieldedTokenizer) -> tuple[str, ...]:
    if isinstance(featurizer, FieldedTokenizer):
        return (*_TOKEN_INPUTS, *_BAG_INPUTS)
    return _BAG_INPUTS if isinstance(featurizer, Featurizer) else _TOKEN_INPUTS


def _padded(items: Bags | Tokens | FieldedTokens) -> dict[str, NDArray[np.generic]]:
    """The graph's inputs by name."""
    if isinstance(items, FieldedTokens):
        return {**_padded(items.tokens), **_padded(items.bags)}
    names = _BAG_INPUTS if isinstance(items, Bags) else _TOKEN_INPUTS
    return dict(zip(names, items.padded(max(1, int(items.lengths.max()))), strict=True))
