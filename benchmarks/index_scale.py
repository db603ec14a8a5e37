"""Recall, latency, bytes and build time of label indexes against the number of labels.

    python benchmarks/index_scale.py [--sizes 10000 100000 1000000] [--dim 256] [--specs auto ...] [--memory BYTES]
        [--folder DIRECTORY] [--vectors FILE.npy --queries FILE.npy] [--threads 1] [--plot]

Vectors are made up (index/clustered.py) unless files of real ones are given, of which the first ones make each size.
They lie in a memory map in --folder, so that 10,000,000 x 256 need 10 GB of disk there and not of memory. Each index is
built to recall@10 of 0.99, opened from its file as a service does, and searched on one thread for one query at a time,
candidates being scored again by the memory map where the report says so; recall is then measured anew against exact
search. Results are added to benchmarks/results/index_scale.json; --plot draws docs/images/index-scale.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.build import IndexReport, build_index, exact_top, open_index, overlap
from index.clustered import write_clustered
from index.files import write_json
from index.rescoring import candidates, rescored
from machine import RESULTS, describe

IMAGE = Path(__file__).parents[1] / "docs/images/index-scale.svg"
_K, _QUERIES, _LEFT_OUT = 10, 1_000, 100


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--specs", nargs="+", default=["auto"])
    arguments.add_argument("--memory", type=int, help="Most bytes that an index may take.")
    arguments.add_argument("--folder", type=Path, default=Path("build/index_scale"))
    arguments.add_argument("--vectors", type=Path)
    arguments.add_argument("--queries", type=Path)
    arguments.add_argument("--threads", type=int, default=1, help="That build; searches are timed on one.")
    arguments.add_argument("--out", type=Path, default=RESULTS / "index_scale.json")
    arguments.add_argument("--plot", action="store_true")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = json.loads(given.out.read_text())["indexes"] if given.out.exists() else []
    for size in given.sizes:
        vectors, queries = _real(given, size) if given.vectors else _made_up(given.folder, size, given.dim)
        for spec in given.specs:
            row = measured(given, spec, vectors, queries)
            print(row, flush=True)
            same = ("labels", "dim", "asked", "real", "memory_budget")
            rows = [*(old for old in rows if any(old[name] != row[name] for name in same)), row]
            write_json(given.out, {"machine": describe(), "indexes": rows})
    if given.plot:
        plot(rows, IMAGE)


def _made_up(folder: Path, size: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    vectors, queries = folder / f"vectors-{size}-{dim}.npy", folder / f"queries-{size}-{dim}.npy"
    if not queries.exists():
        np.save(queries, write_clustered(vectors, size, dim, _QUERIES))
    return np.load(vectors, mmap_mode="r"), np.load(queries)


def _real(given: argparse.Namespace, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.load(given.vectors, mmap_mode="r")[:size], np.load(given.queries)[:_QUERIES]


def measured(
    given: argparse.Namespace, spec: str, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> dict[str, Any]:
    """Build, open and search one index."""
    faiss.omp_set_num_threads(given.threads)
    began, worked = time.monotonic(), time.process_time()
    built, report = build_index(vectors, queries, spec=spec, memory_budget=given.memory, rescore=True)
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    path = given.folder / "index.faiss"
    faiss.write_index(built, str(path))
    del built
    index = open_index(path)
    truth = exact_top(vectors, queries, _K)
    faiss.omp_set_num_threads(1)
    found, taken = zip(*(_searched(index, report, vectors, query[None]) for query in queries), strict=True)
    row = {
        "labels": len(vectors),
        "dim": vectors.shape[1],
        "asked": spec,
        "real": str(given.vectors or ""),
        "memory_budget": given.memory,
        "index": report.factory,
        "search": dict(report.search),
        "recall": round(overlap(np.concatenate(found), truth), 4),
        "p50_ms": round(float(np.median(taken[_LEFT_OUT:])), 3),
        "p99_ms": round(float(np.percentile(taken[_LEFT_OUT:], 99)), 3),
        "bytes_per_label": round(path.stat().st_size / len(vectors), 1),
        "build_seconds": round(seconds, 1),
        "build_cpu_seconds": round(worked, 1),
        "threads": given.threads,
    }
    path.unlink()
    return row


def _searched(
    index: faiss.Index, report: IndexReport, vectors: NDArray[np.float32], query: NDArray[np.float32]
) -> tuple[NDArray[np.int64], float]:
    """Rows found, and milliseconds of the processor: what else runs on the machine does not count."""
    began = time.thread_time()
    rows = index.search(query, candidates(_K, report.rescore))[1]
    if report.rescore > 1.0:
        rows = rescored(query, rows, _K, lambda wanted: vectors[wanted])[1]
    return rows[:, :_K], (time.thread_time() - began) * 1e3


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Latency, bytes and build time against the number of labels, for the indexes that auto chose."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    auto = sorted((row for row in rows if row["asked"] == "auto" and not row["real"]), key=lambda row: row["labels"])
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    shown = (("p50_ms", "median search, ms"), ("bytes_per_label", "bytes a label"), ("build_cpu_seconds", "build, s"))
    for axis, (name, label) in zip(axes, shown, strict=True):
        axis.plot([row["labels"] for row in auto], [row[name] for row in auto], marker="o")
        for row in auto:
            axis.annotate(row["index"].split(",")[0], (row["labels"], row[name]), fontsize=6)
        axis.set(xscale="log", xlabel="labels", ylabel=label)
        if name == "build_cpu_seconds":
            axis.set_yscale("log")
        else:
            axis.set_ylim(0, None)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
