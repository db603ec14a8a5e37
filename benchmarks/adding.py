"""What additions cost, and what a search costs beside them: one thread, generated vectors.

    python benchmarks/adding.py [--labels 1000000] [--dim 256] [--collection COLLECTION]

The index of the labels' vectors, as an export builds it, is the base. Vectors come after it, one
change at a time and in blocks, and are sealed as a service does it, but before the next block and not beside it.
Writes benchmarks/results/adding.json. With --collection a copy of that one is written to as a service does, on disk and
searchable before the next change, one label at a time and in blocks; the result of that is added to the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from index.build import build_index, exact_top, overlap
from index.changes import PutLabel
from index.clustered import clustered
from index.collection import Collection
from index.files import write_json
from index.layered import LayeredIndex
from machine import RESULTS, describe

_K, _QUERIES, _BLOCK = 100, 500, 1_000
_DELTAS = (0, 1_000, 10_000, 100_000)
_ROWS = 65_536
_FILE = RESULTS / "adding.json"
Result = TypeVar("Result")


def topics(vectors: NDArray[np.float32], count: int = 500) -> NDArray[np.int64]:
    """Of each vector (n, dim), the nearest of `count` others of them, drawn by chance: groups of near ones (n,)."""
    centres = np.random.default_rng(4).choice(len(vectors), min(count, len(vectors)), replace=False)
    groups = [
        np.argmax(vectors[start : start + _ROWS] @ vectors[centres].T, axis=1)
        for start in range(0, len(vectors), _ROWS)
    ]
    return np.concatenate(groups).astype(np.int64)


@dataclass
class Measured:
    """Times of many calls of one kind, in seconds."""

    seconds: list[float] = field(default_factory=list)

    def call(self, work: Callable[..., Result], *arguments: object) -> Result:
        began = time.perf_counter()
        result = work(*arguments)
        self.seconds.append(time.perf_counter() - began)
        return result

    def micros(self) -> dict[str, float]:
        return {f"p{share}_us": round(float(np.percentile(self.seconds, share)) * 1e6, 1) for share in (50, 99)}


@dataclass(frozen=True)
class World:
    """Vectors of the base (n, dim), later ones, and queries."""

    base: NDArray[np.float32]
    later: NDArray[np.float32]
    queries: NDArray[np.float32]

    def truth(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of these rows, ascending, of the base and what came later, the best 10 of each query."""
        count = len(self.base)
        vectors = np.concatenate([self.base[rows[rows < count]], self.later[rows[rows >= count] - count]])
        return rows[exact_top(vectors, self.queries, 10)]


def searching(
    index: LayeredIndex, world: World, truth: NDArray[np.int64], allowed: NDArray[np.int64] | None = None
) -> dict[str, float]:
    """One query a call: time, and the share of the best 10 found."""
    times, found = Measured(), []
    for query in world.queries:
        found.append(times.call(index.search, query[None], _K, allowed).rows[0, :10])
    return {**times.micros(), "recall_at_10": round(overlap(np.array(found), truth), 4)}


def growing(index: LayeredIndex, world: World) -> tuple[LayeredIndex, dict[str, object]]:
    """Searches beside ever more vectors, and what sealing takes."""
    count, done = len(world.base), 0
    searches: dict[str, object] = {}
    sealing = []
    for delta in _DELTAS:
        while done < delta:
            rows = np.arange(done, done + _BLOCK)
            index, done = index.add(rows + count, world.later[rows]), done + _BLOCK
            if index.wants_sealing():
                time_of, apply = Measured(), Measured()
                sealed = time_of.call(index.sealed)
                index = apply.call(index.with_sealed, sealed)
                sealing.append((time_of.seconds[0], apply.seconds[0]))
        beside = World(world.base, world.later[:delta], world.queries)
        searches[str(delta)] = searching(index, world, beside.truth(np.arange(count + delta)))
    seconds = np.array(sealing)
    return index, {
        "search_beside": searches,
        "sealings": len(sealing),
        "sealing_seconds": {"mean": round(float(seconds[:, 0].mean()), 2), "last": round(sealing[-1][0], 2)},
        "applying_ms": round(float(seconds[:, 1].max()) * 1e3, 2),
    }


def changing(index: LayeredIndex, world: World) -> dict[str, object]:
    """One label a call: put anew, put over one of the base, put over one that was added, removed."""
    count, later = len(world.base), len(world.later)
    random = np.random.default_rng(2)
    kinds = {
        "new": np.arange(count + later, count + later + 2_000),
        "over_base": random.integers(0, count, 2_000),
        "over_added": random.integers(count, count + later, 2_000),
    }
    costs: dict[str, object] = {}
    for name, rows in kinds.items():
        times = Measured()
        for place, row in enumerate(rows):
            one, vector = np.array([row]), world.later[place : place + 1]
            index = times.call(index.add, one, vector)
        costs[name] = times.micros()
    times = Measured()
    for row in random.integers(0, count + later, 2_000).tolist():
        index = times.call(index.hide, [row])
    return {**costs, "removed": times.micros()}


def filtering(index: LayeredIndex, world: World, topic_of: NDArray[np.int64]) -> dict[str, object]:
    """Where a share of all rows may be found: rows of chance, and all rows of every so-manieth topic."""
    random = np.random.default_rng(3)
    costs: dict[str, object] = {}
    for every in (1_000, 100, 30, 10, 4, 2):
        masks = {"chance": random.random(len(topic_of)) < 1 / every, "topics": topic_of % every == every - 1}
        for name, shown in masks.items():
            allowed = np.flatnonzero(shown)
            if len(allowed) >= 10:
                allowed.setflags(write=False)
                share = f"{name} 1/{every}"
                costs[share] = {"rows": len(allowed), **searching(index, world, world.truth(allowed), allowed)}
    return costs


def writing(collection: Path, changes: int = 10_000) -> dict[str, object]:
    """What writes take in a copy of a collection: of one new label, of one edit, and how many a second in blocks."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(collection, Path(folder) / "collection"))
        with Collection(copy) as opened:
            labels = len(opened.snapshot.labels)
            alone, edits, blocks = Measured(), Measured(), Measured()
            for number in range(changes):
                alone.call(opened.write, [PutLabel(f"alone {number}", f"a label that is new, number {number}")])
            for number in range(0, changes, 10):
                edits.call(opened.write, [PutLabel(f"alone {number}", f"another text of number {number}")])
            for start in range(0, changes, _BLOCK):
                block = [
                    PutLabel(f"block {start + place}", f"new in a block {start + place}") for place in range(_BLOCK)
                ]
                blocks.call(opened.write, block)
            assert len(opened.snapshot.labels) == labels + 2 * changes
    return {
        "labels": labels,
        "new": alone.micros(),
        "edited": edits.micros(),
        "in_blocks_per_second": round(changes / sum(blocks.seconds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--collection", type=Path, help="Write to a copy of this one instead.")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    if arguments.collection:
        written = {"machine": describe(), **writing(arguments.collection)}
        before = json.loads(_FILE.read_text()) if _FILE.exists() else {}
        print(json.dumps(written, indent=2))
        write_json(_FILE, {**before, "collection": written})
        return
    count, later = arguments.labels, max(_DELTAS)
    vectors, queries = clustered(count + later, arguments.dim, _QUERIES)
    world = World(vectors[:count], vectors[count:], queries)
    built = Measured()
    base, report = built.call(partial(build_index, world.base, world.queries, rescore=True))
    index, grown = growing(LayeredIndex.over(base, world.base, rescore=report.rescore), world)
    result = {
        "machine": describe(),
        "labels": count,
        "dim": arguments.dim,
        "k": _K,
        "base": {**asdict(report), "build_seconds": round(built.seconds[0], 1)},
        **grown,
        "one_change": changing(index, world),
        "filtered_search": filtering(index, world, topics(vectors)),
    }
    print(json.dumps(result, indent=2))
    write_json(_FILE, result)


if __name__ == "__main__":
    main()
