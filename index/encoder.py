"""Runs an exported tower: texts and fields to unit vectors, through ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

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

# Padded cells (texts x longest bag or text) of one run. Of bags: few, so that the rows looked up stay in the
# processor's cache. Of tokens: bounds memory at cells x the width of the transformer's widest layer, where more at once
# would not be faster.
_CELLS = 1 << 12
_TOKEN_CELLS = 1 << 12
# The sum over a text's rows is taken four at a time: padded to that, it is the same to the last bit whatever texts are
# encoded beside it, and a label has one vector only.
_PADDED_TO = 4
_BAG_INPUTS = ("rows", "weights")
_TOKEN_INPUTS = ("input_ids", "attention_mask")


@dataclass(slots=True)
class UnseenValues:
    """How many rows texts and fields had looked up since the start, and how many values training never met.

    Those that are left out are not among what was looked up.
    """

    looked_up: int = 0
    unseen: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, bags: Bags) -> None:
        """Those of some texts; nothing where the featurizer does not tell."""
        if bags.unseen is not None:
            # A service asks for one text at a time, where summing an array of one costs more than reading it.
            unseen = bags.unseen.item() if len(bags.unseen) == 1 else int(bags.unseen.sum())
            looked_up = len(bags.rows)
            for sequence in bags.sequences:
                looked_up += len(sequence.rows)
            with self._lock:
                self.looked_up += looked_up
                self.unseen += unseen


class Encoder:
    """One tower, from texts, bags or tokens to float32 unit vectors (n, dim)."""

    def __init__(self, graph: Path, featurizer: Featurizer | Tokenizer | FieldedTokenizer, *, threads: int = 1) -> None:
        """Load `graph` (ONNX), whose inputs are what `Bags.padded` or `Tokens.padded` gives, each (batch, length).

        These are `rows` int32 and `weights` float32, (batch, slots, length) where there are several slots, beside
        `history{i}.rows` int32 and `history{i}.mask` float32 of the i-th history field; or `input_ids` and
        `attention_mask` int64; or `rows`, `weights` and these, the bags being those of the fields. Raises BundleError
        when the file is no such graph.
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
        tells = isinstance(featurizer, Featurizer) and featurizer.tells_unseen
        self.unseen = UnseenValues() if tells else None
        self.dim = int(self._session.get_outputs()[0].shape[-1])

    def texts(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> NDArray[np.float32]:
        """Unit vectors (len(texts), dim); a text without a single word or digit gets the tower's default vector.

        What training never met of them is counted in `unseen`, where the bundle knows. fields: those of each text, or
        None. Raises InputError naming a field that the tower does not read.
        """
        said = fields if fields is not None and any(fields) else None
        if not isinstance(self.featurizer, Tokenizer):
            items = self.featurizer(texts, said)
            if self.unseen is not None and isinstance(items, Bags):
                self.unseen.add(items)
            return self.items(items)
        if said is not None:
            raise InputError("this model reads no fields; leave them out")
        return self.items(self.featurizer(texts))

    def items(self, items: Bags | Tokens | FieldedTokens) -> NDArray[np.float32]:
        """Unit vectors (len(items), dim) of what the featurizer made of texts."""
        if len(items) == 1:
            return self._run(items)
        vectors = np.empty((len(items), self.dim), dtype=np.float32)
        # Texts of like length run together, so that little of a batch is padding.
        lengths = items.lengths
        order = np.argsort(lengths, kind="stable")
        for part in length_runs(lengths[order], self._cells):
            vectors[order[part]] = self._run(items.take(order[part]))
        return vectors

    def _run(self, items: Bags | Tokens | FieldedTokens) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(None, _padded(items))[0]
        return found


def _inputs_of(featurizer: Featurizer | Tokenizer | FieldedTokenizer) -> tuple[str, ...]:
    if isinstance(featurizer, Tokenizer):
        return _TOKEN_INPUTS
    if isinstance(featurizer, FieldedTokenizer):
        return (*_TOKEN_INPUTS, *_BAG_INPUTS)
    histories = range(len(featurizer.spec.histories))
    return (*_BAG_INPUTS, *(name for number in histories for name in _history_inputs(number)))


def _history_inputs(number: int) -> tuple[str, str]:
    return f"history{number}.rows", f"history{number}.mask"


def _padded(items: Bags | Tokens | FieldedTokens) -> dict[str, NDArray[np.generic]]:
    """The graph's inputs by name."""
    if isinstance(items, FieldedTokens):
        return {**_padded(items.tokens), **_padded(items.bags)}
    if isinstance(items, Tokens):
        return dict(zip(_TOKEN_INPUTS, items.padded(max(1, int(items.lengths.max()))), strict=True))
    inputs: dict[str, NDArray[np.generic]] = dict(zip(_BAG_INPUTS, _padded_bags(items), strict=True))
    for number, sequence in enumerate(items.sequences):
        longest = max(1, int(sequence.lengths.max()))
        inputs.update(zip(_history_inputs(number), sequence.padded(longest), strict=True))
    return inputs


def _padded_bags(bags: Bags) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`Bags.padded` to the longest text."""
    longest = int(np.diff(bags.offsets[:: bags.slots]).max(initial=0))
    length = max(1, -(-longest // _PADDED_TO)) * _PADDED_TO
    if len(bags) > 1 or not longest:
        return bags.padded(length)
    # One text is what a service encodes all the time.
    rows = np.zeros((1, length), dtype=np.int32)
    rows[0, :longest] = bags.rows
    if bags.slots == 1:
        weights = np.zeros((1, length), dtype=np.float32)
        weights[0, :longest] = bags.weights
        return rows, weights
    weights = np.zeros((1, bags.slots, length), dtype=np.float32)
    slots = np.repeat(np.arange(bags.slots), np.diff(bags.offsets))
    weights[0, slots, np.arange(len(slots))] = bags.weights
    return rows, weights
