"""Texts to vectors in shards on disk, by several processes; a job that goes on encodes only what is not finished."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags
from index.bundle import featurizers
from index.encoder import Encoder
from index.errors import LabelspaceError
from index.feature_spec import FeatureSpec
from index.fielded import FieldedTokens
from index.fields import Fields
from index.files import replacing, sha256_of, write_json
from index.packed import open_array
from index.tokens import Tokens, TokenSpec

# A process that is ended loses the work of one shard at most.
SHARD_ROWS = 4096

Tower = Literal["query", "label"]
Text = tuple[str, Fields | None]
# What is to be done, how much of it, and how much was done before -> a context whose value is called with what is done.
Meter = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Towers:
    """A folder with the files of two towers, and the features that they read."""

    folder: Path
    features: FeatureSpec | TokenSpec

    def open(self, tower: Tower) -> Encoder:
        of_queries, of_labels = featurizers(self.folder, self.features)
        return Encoder(self.folder / f"{tower}.onnx", of_queries if tower == "query" else of_labels)


@dataclass(frozen=True, slots=True)
class Shard:
    """What one file of vectors is made of. source: a file of texts (`write_texts`), or what a featurizer made of some.

    digest: hex, of whatever decides the vectors beside the towers; a finished shard of another one is made again.
    """

    number: int
    tower: Tower
    rows: int
    digest: str
    source: Path | Bags | Tokens | FieldedTokens


def write_texts(folder: Path, number: int, tower: Tower, texts: Sequence[Text]) -> None:
    """Note in `folder` which texts the shard is of; appears whole or not at all."""
    with replacing(folder / f"{number:06d}.{tower}.texts.jsonl") as beside, beside.open("w", encoding="ascii") as file:
        for text, fields in texts:
            # As ASCII, so that even a lone surrogate comes back as it was.
            file.write(json.dumps([text, None if fields is None else dict(fields)]) + "\n")


def text_shards(folder: Path) -> list[Shard]:
    """The shards whose texts `write_texts` has noted in `folder`, by number."""
    shards = []
    for path in sorted(folder.glob("[0-9]*.texts.jsonl")):
        number, tower = path.name.split(".")[:2]
        rows = sum(1 for _ in _lines(path))
        shards.append(Shard(int(number), "query" if tower == "query" else "label", rows, sha256_of(path), path))
    return shards


def item_shards(items: Bags | Tokens | FieldedTokens, tower: Tower, digest: str) -> Iterator[Shard]:
    """Shards of what a featurizer made of many texts, in order. digest: of these and of the featurizer."""
    for number, start in enumerate(range(0, len(items), SHARD_ROWS)):
        rows = np.arange(start, min(start + SHARD_ROWS, len(items)))
        yield Shard(number, tower, len(rows), f"{digest} {start}", items.take(rows))


def read_texts(path: Path) -> list[Text]:
    """The texts that `write_texts` has noted."""
    found = (json.loads(line) for line in _lines(path))
    return [(text, fields) for text, fields in found]


def encode_shards(
    folder: Path,
    shards: Sequence[Shard] | Iterator[Shard],
    towers: Towers,
    *,
    processes: int,
    advance: Callable[[int], None],
) -> None:
    """Make the vectors of those shards that are not finished in `folder`, which is made when it is not there.

    advance: called with the rows of every shard that is finished. processes: 1 encodes in this one; more are started
    anew (spawned), each with towers of its own on one thread. Raises LabelspaceError when a process is killed or the
    disk refuses; what is finished stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.part"):
        leftover.unlink(missing_ok=True)
    missing = _unfinished(folder, shards, advance)
    if processes > 1:
        _encode_beside(folder, missing, towers, processes, advance)
        return
    opened: dict[str, Encoder] = {}
    for shard in missing:
        _encode(folder, shard, towers, opened)
        advance(shard.rows)


def open_shard(folder: Path, number: int) -> NDArray[np.float32]:
    """The vectors (rows, dim) of a finished shard, by memory map."""
    found: NDArray[np.float32] = open_array(_vectors(folder, number))
    return found


def is_finished(folder: Path, shard: Shard) -> bool:
    """Whether its vectors are in `folder`, every byte as it was written."""
    note, vectors = _note(folder, shard.number), _vectors(folder, shard.number)
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        return bool(said["digest"] == shard.digest and sha256_of(vectors) == said["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _unfinished(
    folder: Path, shards: Sequence[Shard] | Iterator[Shard], advance: Callable[[int], None]
) -> Iterator[Shard]:
    for shard in shards:
        if is_finished(folder, shard):
            advance(shard.rows)
        else:
            yield shard


def _encode(folder: Path, shard: Shard, towers: Towers, opened: dict[str, Encoder]) -> None:
    encoder = opened.get(shard.tower)
    if encoder is None:
        encoder = opened[shard.tower] = towers.open(shard.tower)
    if isinstance(shard.source, Path):
        texts = read_texts(shard.source)
        vectors = encoder.texts([text for text, _ in texts], [fields for _, fields in texts])
    else:
        vectors = encoder.items(shard.source)
    # The note is what makes a shard count: it is written when the vectors are on the disk, and gone before they change.
    _note(folder, shard.number).unlink(missing_ok=True)
    with replacing(_vectors(folder, shard.number)) as beside, beside.open("wb") as file:
        np.save(file, vectors)
    sha256 = sha256_of(_vectors(folder, shard.number))
    write_json(_note(folder, shard.number), {"digest": shard.digest, "sha256": sha256})


def _encode_beside(
    folder: Path, missing: Iterator[Shard], towers: Towers, processes: int, advance: Callable[[int], None]
) -> None:
    first = next(missing, None)
    if first is None:
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (folder, towers))
    waiting: dict[Future[None], int] = {pool.submit(_encode_here, first): first.rows}
    try:
        more = True
        while waiting:
            # A few ahead of the processes: what waits is in memory.
            while more and len(waiting) < 2 * processes:
                shard = next(missing, None)
                more = shard is not None
                if shard is not None:
                    waiting[pool.submit(_encode_here, shard)] = shard.rows
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                rows = waiting.pop(done)
                done.result()
                advance(rows)
    except BrokenProcessPool as error:
        raise LabelspaceError(
            f"{folder}: a process that encodes was killed (is there enough memory?); give the same command again, "
            "finished shards are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


# Of a process that encodes: where it writes, and what it has opened.
_HERE: list[tuple[Path, Towers, dict[str, Encoder]]] = []


def _start(folder: Path, towers: Towers) -> None:
    # Ctrl-C is for the process that was called, which then ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _HERE.append((folder, towers, {}))


def _end_with_parent() -> None:
    """Without this, processes whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _encode_here(shard: Shard) -> None:
    folder, towers, opened = _HERE[0]
    _encode(folder, shard, towers, opened)


def text_digest(tower: Tower, text: str, fields: Fields | None) -> bytes:
    """16 bytes that only the tower, the text and its fields decide."""
    said = json.dumps([tower, text, dict(fields) if fields else None], sort_keys=True)
    return hashlib.blake2b(said.encode("ascii"), digest_size=16).digest()


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii") as file:
        yield from file


def _vectors(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npy"


def _note(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
