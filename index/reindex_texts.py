"""The texts that a series of changes makes a snapshot encode: noted beforehand, and answered from finished shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.changes import Change
from index.encode_shards import SHARD_ROWS, Shard, Text, Tower, open_shard, read_texts, text_digest, write_texts
from index.encoder import Encoder
from index.fields import Fields
from index.files import write_json
from index.snapshot import Snapshot

_ALL_NOTED = "texts.json"


class _Noting(Encoder):
    """Takes down what it is asked for, and answers zeros."""

    def __init__(self, encoder: Encoder, tower: Tower) -> None:
        self.featurizer, self.unseen, self.dim = encoder.featurizer, None, encoder.dim
        self.tower: Tower = tower
        self.asked: list[Text] = []
        self._seen: set[bytes] = set()

    def texts(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> NDArray[np.float32]:
        for text, said in zip(texts, fields or [None] * len(texts), strict=True):
            digest = text_digest(self.tower, text, said)
            if digest not in self._seen:
                self._seen.add(digest)
                self.asked.append((text, said))
        return np.zeros((len(texts), self.dim), dtype=np.float32)


class ReadyEncoder(Encoder):
    """A tower that answers from finished shards what is in them, and encodes the rest."""

    def __init__(self, encoder: Encoder, tower: Tower, folder: Path, shards: Sequence[Shard]) -> None:
        """shards: of this tower, finished in `folder`, their sources files of texts."""
        self.featurizer, self.unseen, self.dim = encoder.featurizer, encoder.unseen, encoder.dim
        self._encoder, self._tower = encoder, tower
        self._vectors = [open_shard(folder, shard.number) for shard in shards]
        self._starts = np.cumsum([0, *(len(vectors) for vectors in self._vectors)])
        raw = b"".join(
            text_digest(tower, *text)
            for shard in shards
            if isinstance(shard.source, Path)
            for text in read_texts(shard.source)
        )
        digests = np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2)
        self._order = np.argsort(digests[:, 0], kind="stable")
        self._digests = digests[self._order]

    def texts(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> NDArray[np.float32]:
        said = fields or [None] * len(texts)
        raw = b"".join(text_digest(self._tower, *pair) for pair in zip(texts, said, strict=True))
        places = self._find(np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2))
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        shard = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(shard[places >= 0]):
            here = (shard == number) & (places >= 0)
            vectors[here] = self._vectors[number][places[here] - self._starts[number]]
        missing = np.flatnonzero(places < 0).tolist()
        if missing:
            vectors[missing] = self._encoder.texts([texts[at] for at in missing], [said[at] for at in missing])
        return vectors

    def _find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each digest among all shards' rows, (n,); -1 where it is in none."""
        at = np.searchsorted(self._digests[:, 0], digests[:, 0])
        inside = np.minimum(at, max(0, len(self._digests) - 1))
        if not len(self._digests):
            return np.full(len(digests), -1, dtype=np.int64)
        # Two that share the first half do not happen; if they did, the second would be encoded once more.
        found = (self._digests[inside] == digests).all(axis=1)
        return np.where(found, self._order[inside], -1)


def note_texts(folder: Path, snapshot: Snapshot, blocks: Iterable[Sequence[Change]]) -> None:
    """Write into `folder`, shard by shard, what `snapshot` will encode for these changes; not again when it is there.

    The changes are gone through as they will be, with towers that only note what they are asked for.
    """
    if (folder / _ALL_NOTED).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    queries = _Noting(snapshot.bundle.queries, "query")
    labels = _Noting(snapshot.bundle.label_texts, "label")
    snapshot = replace(snapshot, bundle=replace(snapshot.bundle, queries=queries, label_texts=labels))
    number = 0
    for block in blocks:
        snapshot = snapshot.after(block)
        for noting in (queries, labels):
            while len(noting.asked) >= SHARD_ROWS:
                write_texts(folder, number, noting.tower, noting.asked[:SHARD_ROWS])
                del noting.asked[:SHARD_ROWS]
                number += 1
    for noting in (queries, labels):
        if noting.asked:
            write_texts(folder, number, noting.tower, noting.asked)
            number += 1
    write_json(folder / _ALL_NOTED, {"shards": number})


def with_ready_texts(snapshot: Snapshot, folder: Path, shards: Sequence[Shard]) -> Snapshot:
    """The same, answering from these finished shards what is in them."""
    queries, labels = (
        ReadyEncoder(encoder, tower, folder, [shard for shard in shards if shard.tower == tower])
        for encoder, tower in _towers(snapshot)
    )
    return replace(snapshot, bundle=replace(snapshot.bundle, queries=queries, label_texts=labels))


def _towers(snapshot: Snapshot) -> tuple[tuple[Encoder, Tower], ...]:
    return (snapshot.bundle.queries, "query"), (snapshot.bundle.label_texts, "label")
