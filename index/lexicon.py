"""What a model has learned of features from its corpus: subword pieces, and the values that have a row of their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError, first_line
from index.files import replacing
from index.hashing import digest
from index.packed import open_array

PIECES_FILE = "pieces.json"
VOCABULARY_FILE = "vocabulary.npy"


class Lexicon:
    """Part of a model beside its FeatureSpec, which names it by its digest. It never changes.

    pieces: content of a tokenizer.json of the tokenizers library; None for no subword pieces. vocabulary: (n,) uint64,
    ascending, the hash of each value that has a row of its own; None where rows are hashed. digest: hex SHA-256 of
    both, "" for neither.
    """

    def __init__(self, pieces: str | None = None, vocabulary: NDArray[np.uint64] | None = None) -> None:
        """Raises BundleError when the library cannot read `pieces`."""
        self.pieces, self.vocabulary = pieces, vocabulary
        self.digest = lexicon_digest(pieces, vocabulary)
        if pieces is None:
            return
        # Read by the library in every call: a pool of its own in each process would outnumber the cores.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        try:
            self._library = Tokenizer.from_str(pieces)
        except Exception as error:
            raise BundleError(f"{PIECES_FILE}: not a tokenizer that can be loaded ({first_line(error)})") from error
        ids = self._library.get_vocab(with_added_tokens=True)
        self._hashes = np.zeros(1 + max(ids.values(), default=-1), dtype=np.uint64)
        for piece, place in ids.items():
            self._hashes[place] = digest(piece)

    @classmethod
    def open(cls, folder: Path, digest: str) -> Lexicon:
        """The lexicon of this digest that lies in `folder`, its vocabulary by memory map.

        Raises BundleError naming the files when they are not those of the digest or cannot be read.
        """
        pieces_path, vocabulary_path = folder / PIECES_FILE, folder / VOCABULARY_FILE
        try:
            pieces = pieces_path.read_bytes().decode("utf-8") if pieces_path.exists() else None
            vocabulary = open_array(vocabulary_path) if vocabulary_path.exists() else None
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{folder}: {PIECES_FILE} or {VOCABULARY_FILE} cannot be read ({first_line(error)}); restore them"
            ) from error
        if lexicon_digest(pieces, vocabulary) != digest:
            there = [path.name for path in (pieces_path, vocabulary_path) if path.exists()]
            raise BundleError(
                f"{folder}: {PIECES_FILE} and {VOCABULARY_FILE} are not those of the model's features (there: "
                f"{', '.join(there) or 'neither'}; expected digest {digest[:12] or 'of none'}); restore them"
            )
        try:
            return cls(pieces, vocabulary)
        except BundleError as error:
            raise BundleError(f"{folder}/{error}") from error

    def save(self, folder: Path) -> None:
        """Write what there is into `folder`, each file whole or not at all. Raises LabelspaceError as index.files."""
        for name, content in ((PIECES_FILE, self.pieces), (VOCABULARY_FILE, self.vocabulary)):
            if content is None:
                (folder / name).unlink(missing_ok=True)
                continue
            with replacing(folder / name) as beside:
                if isinstance(content, str):
                    beside.write_bytes(content.encode("utf-8"))
                else:
                    with beside.open("wb") as file:
                        np.save(file, content)

    def pieces_of(self, normal: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The pieces of texts as index.features.normalise gives them: text number (m,) and hash (m,), in order.

        A hash is of the piece's string alone, without a salt. A character that no piece has is left out. Only for a
        lexicon that has pieces.
        """
        # Words begin with their space. The last has one after it, too, which would be a piece of its own.
        found = self._library.encode_batch_fast([text[:-1] for text in normal])
        ids = [encoding.ids for encoding in found]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
        return np.repeat(np.arange(len(ids)), lengths), self._hashes[flat]


def lexicon_digest(pieces: str | None, vocabulary: NDArray[np.uint64] | None) -> str:
    """What FeatureSpec.lexicon names a lexicon by."""
    if pieces is None and vocabulary is None:
        return ""
    content = b"" if pieces is None else pieces.encode("utf-8")
    sha256 = hashlib.sha256(f"pieces {len(content)}\n".encode() + content)
    if vocabulary is not None:
        sha256.update(b"vocabulary\n" + vocabulary.astype("<u8").tobytes())
    return sha256.hexdigest()
