"""Text to the token ids of a transformer tower, as its own tokenizer.json makes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError, InputError, first_line
from index.features import FeatureSpec
from index.field_spec import FieldSpec
from index.files import sha256_of
from index.packed import spans

TOKENS_VERSION = 1
KIND = "tokens"
TOKENIZER_FILE = "tokenizer.json"
# Characters read of a text, for each token that it may have: what follows would be cut off after tokenising anyhow,
# unless the text is little but white space.
_CHARACTERS = 16
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class TokenSpec:
    """What a text's tokens are; part of a model, for its embeddings mean nothing under another tokenizer.

    query_tokens, label_tokens: longest query and label text, special tokens included. tokenizer: hex SHA-256 of
    the tokenizer.json. bags: what the features of the fields beside the text are; None where none are read.
    """

    query_tokens: int
    label_tokens: int
    tokenizer: str
    version: int = TOKENS_VERSION
    bags: FeatureSpec | None = None

    def __post_init__(self) -> None:
        if self.version != TOKENS_VERSION:
            raise InputError(f"tokens of version {self.version}: this program makes version {TOKENS_VERSION}")
        if self.query_tokens < 1 or self.label_tokens < 1:
            raise InputError(f"tokens: the longest query and label must have at least 1 token; got {self}")

    @property
    def characters(self) -> int:
        """How much of a query text is looked at: no token of what follows would be among the first `query_tokens`."""
        return self.query_tokens * _CHARACTERS

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """The fields that are read beside the text."""
        return () if self.bags is None else self.bags.fields

    def to_json(self) -> dict[str, Any]:
        values = {"kind": KIND, **asdict(self)}
        del values["bags"]
        return values if self.bags is None else {**values, "bags": self.bags.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TokenSpec:
        bags = None if values.get("bags") is None else FeatureSpec.from_json(values["bags"])
        return cls(**{**{name: value for name, value in values.items() if name != "kind"}, "bags": bags})


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of n texts: text i has `ids[offsets[i]:offsets[i + 1]]` (int32); offsets: (n + 1,) int64."""

    offsets: NDArray[np.int64]
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def take(self, texts: NDArray[np.int64]) -> Tokens:
        """The tokens of the given texts, in that order."""
        lengths = self.lengths[texts]
        return Tokens(_offsets(lengths), self.ids[spans(self.offsets[texts], lengths)])

    def padded(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and attention mask as (n, length) int64 arrays, filled up on the right with id 0 of mask 0."""
        mask = np.arange(length) < self.lengths[:, None]
        ids = np.zeros((len(self), length), dtype=np.int64)
        ids[mask] = self.ids
        return ids, mask.astype(np.int64)


class Tokenizer:
    """Texts to Tokens, each of 1 to `longest` tokens with the special tokens that the model expects.

    A text of which the tokenizer makes nothing at all has the one token 0. What is no valid Unicode (a lone
    surrogate) is read as U+FFFD.
    """

    def __init__(self, path: Path, longest: int, *, threads: int = 1) -> None:
        """Load a tokenizer.json. Raises BundleError when the file is none."""
        # Read by the library in every call: a pool of its own in each process would outnumber the cores.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer as Library

        try:
            self._library = Library.from_file(str(path))
        except Exception as error:
            raise BundleError(f"{path}: not a tokenizer that can be loaded ({first_line(error)})") from error
        # A file may bring the lengths that its model was last used with.
        self._library.no_padding()
        special = self._library.num_special_tokens_to_add(is_pair=False)
        if longest <= special:
            raise InputError(f"{path}: adds {special} special tokens to a text; {longest} tokens leave it no room")
        self._library.enable_truncation(longest)
        self.longest, self.digest = longest, sha256_of(path)
        self._threads = threads

    @property
    def vocabulary(self) -> int:
        """One more than the highest id."""
        return 1 + max(self._library.get_vocab(with_added_tokens=True).values(), default=-1)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        blocks = [texts[start : start + _BLOCK] for start in range(0, len(texts), _BLOCK)]
        if len(blocks) <= 1 or self._threads == 1:
            done = [self._block(block) for block in blocks]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                done = list(pool.map(self._block, blocks))
        return done[0] if len(done) == 1 else stack_tokens(*done)

    def _block(self, texts: Sequence[str]) -> Tokens:
        read = [text[: self.longest * _CHARACTERS] for text in texts]
        try:
            encodings = self._library.encode_batch_fast(read)
        except (TypeError, UnicodeEncodeError):
            whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in read]
            encodings = self._library.encode_batch_fast(whole)
        ids = [encoding.ids or [0] for encoding in encodings]
        flat = [token for text in ids for token in text]
        return Tokens(_offsets(np.array([len(text) for text in ids], dtype=np.int64)), np.array(flat, dtype=np.int32))


def stack_tokens(*parts: Tokens) -> Tokens:
    """The texts of all parts, one after another."""
    return Tokens(
        _offsets(np.concatenate([np.zeros(0, dtype=np.int64), *(part.lengths for part in parts)])),
        np.concatenate([np.zeros(0, dtype=np.int32), *(part.ids for part in parts)]),
    )


def length_runs(lengths: NDArray[np.int64], cells: int, texts: int = 4096) -> list[slice]:
    """Cut ascending lengths into runs of at most `texts` texts and `cells` padded cells (or one text)."""
    values = lengths.tolist()
    runs, start = [], 0
    while start < len(values):
        stop = start + 1
        while stop < len(values) and (stop + 1 - start) * values[stop] <= cells and stop - start < texts:
            stop += 1
        runs.append(slice(start, stop))
        start = stop
    return runs


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
