"""Token ids of a corpus: made once, kept on disk, opened by memory map from then on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.errors import LabelspaceError
from index.files import new_folder
from index.packed import open_array
from index.tokens import TOKENS_VERSION, Tokenizer, Tokens
from training.model_folder import find_model
from training.transformer_config import TransformerConfig

Side = Literal["query", "label"]
_BLOCK = 16384
_NAME_DIGITS = 32


def prepare_texts(
    config: TransformerConfig, side: Side, *, threads: int = 1, store: Path | None = None
) -> Callable[[Sequence[str]], Tokens]:
    """What makes tokens of query or of label texts, each cut to the length configured for that side.

    threads: at work on many texts. store: a folder where the tokens are kept, so that the next run on the same texts
    opens them instead. Raises InputError or BundleError where the model has no tokenizer that can be loaded.
    """
    longest = config.query_tokens if side == "query" else config.label_tokens
    tokenizer = Tokenizer(find_model(config.model).tokenizer, longest, threads=threads)
    if store is None:
        return tokenizer
    return lambda texts: stored_tokens(store, tokenizer, texts)


def stored_tokens(store: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """The tokens of `texts`, by memory map from `store`, where they are written first if they are not there.

    They lie in a folder of their own, named by a digest of the tokenizer, its longest text and all texts. It may be
    deleted at any time. Written block by block: only the offsets of a new corpus are ever held in memory. Where nothing
    can be written, they are made and not kept.
    """
    place = store / _key(tokenizer, texts)
    found = _open(place, len(texts))
    if found is not None:
        return found
    shutil.rmtree(place, ignore_errors=True)  # what is there cannot be opened
    try:
        with new_folder(place) as beside:
            _write(beside, tokenizer, texts)
    except LabelspaceError:
        # A full or read-only disk, or another process was first: the run needs the tokens, not the store.
        return tokenizer(texts)
    found = _open(place, len(texts))
    return tokenizer(texts) if found is None else found


def _open(place: Path, texts: int) -> Tokens | None:
    try:
        tokens = Tokens(open_array(place / "offsets.npy"), open_array(place / "ids.npy"))
    except (OSError, ValueError):
        return None
    return tokens if len(tokens) == texts and tokens.offsets[-1] == len(tokens.ids) else None


def _key(tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{TOKENS_VERSION} {tokenizer.digest} {tokenizer.longest}\n".encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()[:_NAME_DIGITS]


def _write(folder: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    raw = folder / "ids.raw"
    with raw.open("wb") as file:
        for start in range(0, len(texts), _BLOCK):
            tokens = tokenizer(texts[start : start + _BLOCK])
            offsets[start + 1 : start + 1 + len(tokens)] = tokens.lengths
            file.write(tokens.ids.tobytes())
    np.cumsum(offsets, out=offsets)
    np.save(folder / "offsets.npy", offsets)
    # Only now the count is known that the header of a .npy file begins with. Nothing can be mapped of an empty file.
    count = int(offsets[-1])
    ids: NDArray[np.int32] = np.memmap(raw, dtype=np.int32, mode="r") if count else np.zeros(0, dtype=np.int32)
    np.save(folder / "ids.npy", ids)
    raw.unlink()
