"""What `labelspace plan` says beforehand against what is measured: bytes, files and time of indexes of several kinds.

    python benchmarks/plan.py [--sizes 20000 60000] [--dim 256] [--kinds auto IVF1024,SQ8 ...]

One thread. Seconds are those that the processor worked, so that what else runs on the machine counts little. Writes
benchmarks/results/plan.json; stops with an error when a plan was further off than 25 %, in time
where that is 2 seconds or more.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.build import build_index
from index.clustered import clustered
from index.files import write_json
from index.plan import calibrated, plan
from machine import RESULTS, describe

WITHIN, PLANNED_SECONDS = 0.25, 2.0
KINDS = ("Flat", "HNSW14,SQ8", "IVF1024,SQ8", "IVF1024,PQ128x4fs")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[20_000, 60_000])
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--kinds", nargs="+", default=KINDS)
    arguments.add_argument("--out", type=Path, default=RESULTS / "plan.json")
    given = arguments.parse_args()
    faiss.omp_set_num_threads(1)
    rows = [measured(spec, size, given.dim) for size in given.sizes for spec in given.kinds]
    write_json(
        given.out, {"machine": describe(), "within": WITHIN, "judged_from_seconds": PLANNED_SECONDS, "plans": rows}
    )
    off = [row for row in rows if any(abs(ratio - 1) > WITHIN for ratio in judged(row))]
    if off:
        sys.exit("further off than 25 %: " + ", ".join(f"{row['index']} at {row['labels']:,}" for row in off))


def judged(row: dict[str, Any]) -> list[float]:
    """The ratios that have to be near 1: nobody plans for seconds, so the time of a longer build alone."""
    longer = max(row["seconds"], row["seconds_planned"]) >= PLANNED_SECONDS
    return [row["memory_ratio"], row["disk_ratio"], *([row["time_ratio"]] if longer else [])]


def measured(spec: str, size: int, dim: int) -> dict[str, Any]:
    """Planned and measured figures of one index, and measured / planned of each."""
    vectors, queries = clustered(size, dim)
    said = plan(size, dim, calibrated, spec=spec)
    began = time.process_time()
    index, report = build_index(vectors, queries, spec=spec, rescore=True)
    seconds = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(index, f"{folder}/index.faiss")
        np.save(f"{folder}/vectors.npy", vectors)
        sizes = {file.name: file.stat().st_size for file in Path(folder).iterdir()}
    del index
    disk = sum(sizes.values())
    row = {
        "index": report.factory,
        "labels": size,
        "dim": dim,
        "recall": report.recall,
        "memory": sizes["index.faiss"],
        "memory_planned": said.memory,
        "memory_ratio": round(sizes["index.faiss"] / said.memory, 3),
        "disk_ratio": round(disk / said.disk, 3),
        "seconds": round(seconds, 2),
        "seconds_planned": round(said.seconds, 2),
        "time_ratio": round(seconds / said.seconds, 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
