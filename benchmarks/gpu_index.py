"""Building and searching an index on a card against the processor, and against what the card's memory gives a second.

    python benchmarks/gpu_index.py [--device cuda] [--labels 1000000] [--dim 256] [--fp16]
    python benchmarks/gpu_index.py --device cpu --small     # a smoke test, on any machine

For each kind of index: seconds to build it here, to copy it to the card and, for inverted files, to build it there;
then recall@10, and the time of a call with 1 and with 64 queries, all rows shown and a tenth of them hidden. A call
reads the index' vectors, or the lists that it probes, at least once: these bytes over its time are its rate of
reading, given as a share of the rate of a large copy on the device, read and write counted. Graphs have no such figure
here; on a card they are searched as plain vectors. Vectors are generated. Writes benchmarks/results/gpu_index.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.build import BUILD_EFFORT, exact_top, overlap
from index.card_index import CardIndex, card_bytes, flattened, place
from index.clustered import clustered
from index.device import Device, cuda_runtime
from index.errors import LabelspaceError
from index.files import write_json
from index.layered import LayeredIndex
from machine import RESULTS, describe

BUILD = Path("build") / "gpu_index"
KINDS = ("Flat", "HNSW32,SQ8", "IVF4096,SQ8")
SMALL_KINDS = ("Flat", "HNSW8,SQ8", "IVF16,SQ8")
_TOP, _BATCHES, _HIDDEN = 10, (1, 64), 0.1
_PROBED, _QUERIES = 1 / 64, 512


def copy_rate(device: Device) -> float | None:
    """Bytes a second read and written by a large copy in the device's memory, the best of five; None if not known."""
    if device.kind == "cpu":
        source = np.ones(1 << 24, dtype=np.float64)
        target = np.empty_like(source)
        return 2 * source.nbytes / min(_seconds(lambda: np.copyto(target, source)) for _ in range(5))
    runtime, size, times = cuda_runtime(), 1 << 30, 10
    if runtime is None:
        return None
    places = [ctypes.c_void_p(), ctypes.c_void_p()]
    runtime.cudaMalloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    runtime.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    runtime.cudaFree.argtypes = [ctypes.c_void_p]
    try:
        if runtime.cudaSetDevice(device.cards[0]) or any(runtime.cudaMalloc(ctypes.byref(at), size) for at in places):
            return None

        def copy() -> None:
            for _ in range(times):
                runtime.cudaMemcpy(places[1], places[0], size, 3)
            runtime.cudaDeviceSynchronize()

        copy()
        return 2 * size * times / min(_seconds(copy) for _ in range(5))
    finally:
        for at in places:
            runtime.cudaFree(at)


def built(kind: str, vectors: NDArray[np.float32]) -> faiss.Index:
    """An index of this kind over the vectors; inverted files probe one list in 64, at least 4."""
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if hasattr(index, "hnsw"):
        index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_EFFORT, 128
    index.train(vectors)
    index.add(vectors)
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = max(4, round(index.nlist * _PROBED))
    return index


def built_on_card(kind: str, vectors: NDArray[np.float32], device: Device) -> faiss.Index:
    """An inverted file, trained and filled on the first card, brought back."""
    empty = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    options = faiss.GpuClonerOptions()
    options.use_cuvs = False
    on_card = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.cards[0], empty, options)
    on_card.train(vectors)
    on_card.add(vectors)
    return faiss.index_gpu_to_cpu(on_card)


def bytes_read(index: Any, device: Device, queries: NDArray[np.float32]) -> int | None:
    """The least that a call with these queries reads: all vectors, or the codes of all lists that they probe."""
    host = index.host if isinstance(index, CardIndex) else index
    if isinstance(host, faiss.IndexIVF):
        view = flattened(host)
        probed = np.unique(view.quantizer.search(queries, view.nprobe)[1])
        rows = sum(int(host.invlists.list_size(int(number))) for number in probed if number >= 0)
        # A row's number is read with its code, and all centres to choose among the lists.
        return rows * (int(host.code_size) + 8) + int(host.nlist) * int(host.d) * 4
    if isinstance(index, CardIndex):
        return int(host.ntotal) * int(host.d) * (2 if device.fp16 else 4)
    return int(host.ntotal) * int(host.d) * 4 if isinstance(host, faiss.IndexFlat) else None


def searched(
    index: Any, device: Device, queries: NDArray[np.float32], truth: NDArray[np.int64], rate: float | None
) -> dict[str, Any]:
    """Recall, and the time and the rate of reading of calls, on one device."""
    shown = LayeredIndex.over(index)
    hidden = shown.hide(np.flatnonzero(np.random.default_rng(5).random(int(index.ntotal)) < _HIDDEN).tolist())
    result: dict[str, Any] = {"recall@10": round(overlap(shown.search(queries, _TOP).rows, truth), 4)}
    for batch in _BATCHES:
        calls = [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]
        median = _median(lambda call: shown.search(call, _TOP), calls)
        result[f"batch {batch} p50_ms"] = round(1e3 * median, 4)
        masked = _median(lambda call: hidden.search(call, _TOP), calls)
        result[f"batch {batch}, a tenth hidden, p50_ms"] = round(1e3 * masked, 4)
        read = bytes_read(index, device, calls[0])
        if read is not None:
            result[f"batch {batch} bytes"] = read
            result[f"batch {batch} gb_a_second"] = round(read / median / 1e9, 3)
            if rate is not None:
                result[f"batch {batch} share of the copy's rate"] = round(read / median / rate, 3)
    return result


def measure(
    kind: str,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    device: Device,
    rates: dict[Device, float | None],
) -> dict[str, Any]:
    """One kind of index: on the processor and, where the device is a card, there; rates: of a copy on each."""
    truth = exact_top(vectors, queries, _TOP)
    processor = Device("cpu")
    made: list[faiss.Index] = []
    seconds = _seconds(lambda: made.append(built(kind, vectors)))
    host = made[0]
    here = {"build_seconds": round(seconds, 2), **searched(host, processor, queries, truth, rates[processor])}
    result: dict[str, Any] = {"kind": kind, "labels": len(vectors), "dim": vectors.shape[1], "cpu": here}
    if device.kind != "cuda":
        return result
    there: dict[str, Any] = {"expected_gb": round(card_bytes(host, device).kept / 1e9, 3)}
    if isinstance(host, faiss.IndexIVF):
        there["build_seconds"] = round(_seconds(lambda: built_on_card(kind, vectors, device)), 2)
    placed: list[Any] = []
    there["copy_seconds"] = round(_seconds(lambda: placed.append(place(host, device))), 2)
    there |= searched(placed[0], device, queries, truth, rates[device])
    return {**result, str(device): there, "fp16": device.fp16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--fp16", action="store_true", help="plain vectors in 2 bytes a number on the card")
    parser.add_argument("--sharded", action="store_true", help="a share of the vectors on each card")
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--kind", dest="kinds", action="append", help=f"FAISS factory string; default: {KINDS}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="2,000 labels, for a test of the script")
    parser.add_argument("--out", type=Path, help="default: results/gpu_index.json, and build/gpu_index/ with --small")
    arguments = parser.parse_args()
    try:
        asked = Device.parse(arguments.device, fp16=arguments.fp16, sharded=arguments.sharded)
        device = asked.usable(print)
    except LabelspaceError as error:
        sys.exit(str(error))
    faiss.omp_set_num_threads(arguments.threads)
    labels, dim = (2_000, 32) if arguments.small else (arguments.labels, arguments.dim)
    vectors, queries = clustered(labels, dim, 128 if arguments.small else _QUERIES)
    out = arguments.out or (BUILD / "smoke.json" if arguments.small else RESULTS / "gpu_index.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    results = []
    rates = {on: copy_rate(on) for on in {Device("cpu"), device}}
    for on, rate in rates.items():
        print(f"{on}: a copy reads and writes {'an unknown number of' if rate is None else f'{rate / 1e9:.1f}'} GB/s")
    for kind in arguments.kinds or (SMALL_KINDS if arguments.small else KINDS):
        try:
            results.append(measure(kind, vectors, queries, device, rates))
        except LabelspaceError as error:
            sys.exit(f"{kind}: {error}")
        print(json.dumps(results[-1], indent=1))
        write_json(
            out,
            {
                "device": str(device),
                "threads": arguments.threads,
                "copy bytes a second": {str(on): rate for on, rate in rates.items()},
                "machine": describe(),
                "results": results,
            },
        )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _median(work: Callable[[NDArray[np.float32]], object], calls: Sequence[NDArray[np.float32]]) -> float:
    """Of the calls' seconds, each made once, after one that is not counted."""
    work(calls[0])
    return float(np.median([_seconds(partial(work, call)) for call in calls]))


if __name__ == "__main__":
    main()
