"""Bags of a corpus: made once, kept on disk, opened by memory map from then on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags, Sequences
from index.errors import InputError, LabelspaceError
from index.features import Featurizer
from index.fields import Fields
from index.files import new_folder, write_json

STORE_VERSION = 1
# Fewer texts are featurised in less time than their files take to be written safely.
LEAST_TEXTS = 20_000
# What all entries together may take on disk before those that were used longest ago go.
MOST_BYTES = 8 << 30
_RECENT_SECONDS = 3600.0
_BLOCK = 8192
_NAME_DIGITS = 32
_ABOUT = "about.json"
_KINDS = {"offsets": "<i8", "rows": "<i4", "weights": "<f4", "unseen": "<i4"}


def prepare_bags(
    featurizer: Featurizer, *, threads: int = 1, store: Path | None = None
) -> Callable[[Sequence[str], Sequence[Fields | None] | None], Bags]:
    """What makes bags of many texts and fields, with `threads` at work; store: where those of large corpora are kept.

    Raises InputError for fields as Featurizer does.
    """

    def prepare(texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        if store is None or len(texts) < LEAST_TEXTS:
            return featurizer(texts, fields)
        return stored_bags(store, featurizer, texts, fields, threads=threads)

    return prepare


def stored_bags(
    store: Path,
    featurizer: Featurizer,
    texts: Sequence[str],
    fields: Sequence[Fields | None] | None = None,
    *,
    threads: int = 1,
) -> Bags:
    """The bags of `texts` and `fields`, by memory map from `store`, where they are written first if they are not there.

    They lie in a folder of their own, named by a digest of the specification, the tower, all texts and all fields. It
    may be deleted at any time. Written block by block: only the offsets of a new corpus are ever held in memory. Where
    nothing can be written, they are made and not kept. The arrays are read-only.
    """
    place = store / _key(featurizer, texts, fields)
    found = _open(place, len(texts))
    if found is not None:
        return found
    shutil.rmtree(place, ignore_errors=True)  # what is there cannot be opened
    try:
        with new_folder(place) as beside:
            _write(beside, _blocks(featurizer, texts, fields, threads))
    except InputError:
        raise  # of the fields
    except LabelspaceError:
        pass  # a full or read-only disk, or another process was first: the run needs the bags, not the store
    else:
        _keep_below(store, MOST_BYTES, place)
    found = _open(place, len(texts))
    return featurizer(texts, fields) if found is None else found


def _blocks(
    featurizer: Featurizer, texts: Sequence[str], fields: Sequence[Fields | None] | None, threads: int
) -> Iterator[Bags]:
    """The bags of all texts in their order, block by block; of none, one empty block."""

    def block(start: int) -> Bags:
        part = slice(start, start + _BLOCK)
        return featurizer(texts[part], None if fields is None else fields[part])

    starts = range(0, len(texts), _BLOCK) or range(1)
    # Threads, for NumPy lets go of the interpreter: on two cores, processes gain no more and cost their start.
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(starts), 2 * threads):  # not all at once: what is done waits in memory
            yield from pool.map(block, starts[first : first + 2 * threads])


def _write(folder: Path, blocks: Iterator[Bags]) -> None:
    sizes: dict[str, int] = {}
    ends: dict[str, int] = {}
    files: dict[str, BinaryIO] = {}
    about: dict[str, object] = {}
    with ExitStack() as stack:
        for bags in blocks:
            about = {"slots": bags.slots, "sequences": len(bags.sequences), "unseen": bags.unseen is not None}
            for name, values in _arrays(bags).items():
                if name not in files:
                    files[name] = stack.enter_context((folder / name).open("wb"))
                    sizes[name] = ends[name] = 0
                if name.endswith("offsets"):
                    # Each block's begin at 0; the first of the next is the last of this one.
                    values = values[min(sizes[name], 1) :] + ends[name]
                    ends[name] = int(values[-1]) if len(values) else ends[name]
                files[name].write(np.ascontiguousarray(values).data)
                sizes[name] += len(values)
    write_json(folder / _ABOUT, {**about, "sizes": sizes})


def _arrays(bags: Bags) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {"offsets": bags.offsets, "rows": bags.rows, "weights": bags.weights}
    if bags.unseen is not None:
        found["unseen"] = bags.unseen
    for place, sequence in enumerate(bags.sequences):
        found[f"history{place}.offsets"], found[f"history{place}.rows"] = sequence.offsets, sequence.rows
    return found


def _open(place: Path, texts: int) -> Bags | None:
    """None for what is not there, is damaged, or is of another number of texts."""
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        found = {name: _mapped(place / name, int(size)) for name, size in about["sizes"].items()}
        bags = Bags(
            found["offsets"],
            found["rows"],
            found["weights"],
            int(about["slots"]),
            tuple(
                Sequences(found[f"history{number}.offsets"], found[f"history{number}.rows"])
                for number in range(about["sequences"])
            ),
            found["unseen"] if about["unseen"] else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with suppress(OSError):
        os.utime(place)  # used now: others go first
    whole = len(bags) == texts and bags.offsets[-1] == len(bags.rows) == len(bags.weights)
    for sequence in bags.sequences:
        whole = whole and len(sequence) == texts and sequence.offsets[-1] == len(sequence.rows)
    return bags if whole and (bags.unseen is None or len(bags.unseen) == texts) else None


def _mapped(path: Path, size: int) -> NDArray[Any]:
    """Raises ValueError when the file is of another size."""
    kind = np.dtype(_KINDS[path.name.rpartition(".")[2]])
    if path.stat().st_size != size * kind.itemsize:
        raise ValueError(f"{path}: {size} values are not what is there")
    # Nothing can be mapped of an empty file. As a plain array: the memmap subclass makes small slices slower.
    return np.asarray(np.memmap(path, dtype=kind, mode="r")) if size else np.zeros(0, dtype=kind)


def _key(featurizer: Featurizer, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> str:
    about = {"version": STORE_VERSION, "features": featurizer.spec.to_json(), "tower": featurizer.tower}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for start in range(0, len(texts), _BLOCK):
        part = texts[start : start + _BLOCK]
        # Their lengths say where one ends and the next begins.
        digest.update(np.fromiter(map(len, part), dtype=np.int64, count=len(part)).tobytes())
        digest.update("".join(part).encode("utf-8", "surrogatepass"))
        if fields is not None:
            digest.update(json.dumps(fields[start : start + _BLOCK], sort_keys=True).encode())
    return digest.hexdigest()[:_NAME_DIGITS]


def _keep_below(store: Path, most: int, newest: Path) -> None:
    """Remove the entries that were used longest ago until all take at most `most` bytes.

    The newest stays, and so do those of the last hour: they are the other parts of the same corpus.
    """
    entries = []
    for place in store.iterdir():
        if len(place.name) == _NAME_DIGITS:
            with suppress(OSError):  # another process may remove it, too
                size = sum(file.stat().st_size for file in place.iterdir())
                entries.append((place.stat().st_mtime, size, place))
    total = sum(size for _, size, _ in entries)
    for used, size, place in sorted(entries):
        if total > most and place != newest and time.time() - used > _RECENT_SECONDS:
            # Whoever has mapped its files goes on reading them.
            shutil.rmtree(place, ignore_errors=True)
            total -= size
