"""Peak memory and time of a loss over all labels, forward and backward: the whole score matrix against streaming it.

    python benchmarks/bounded_memory.py [--queries 256] [--dim 128] [--labels 4096 16384 ...] [--chunk 8192]

Each measurement is a process of its own with one thread; its time is processor time, because a machine may be shared.
Memory is the growth of its peak over what it has before the loss (interpreter, torch, both matrices of vectors, and a
first small loss). The gradients of queries and labels are in it; "gradients mb" says how much those are. The whole
matrix is skipped where it alone exceeds 6 GB. Writes benchmarks/results/bounded_memory.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, describe

LABELS = (4096, 16384, 65536, 262144, 1048576)
# Up to how many labels each is measured: soft top-k's passes would be most of the benchmark's time.
LOSSES = {"decoupled_softmax": 1048576, "soft_top_k": 262144}
MOST_BYTES = 6e9
POSITIVES = 5
SCALE = 20.0


def measure(way: str, name: str, queries: int, labels: int, dim: int, chunk: int) -> dict[str, float]:
    """In this process: seconds of the processor, MB of peak memory, and the loss."""
    import torch
    from torch import Tensor

    from training.losses import make_loss
    from training.streamed import Pairs, streamed_loss

    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    loss = make_loss(name)

    def run(queries: Tensor, labels: Tensor, pairs: Pairs) -> float:
        if way == "streamed":
            value = streamed_loss(loss, queries, labels, pairs, SCALE, chunk=chunk)
        else:
            positive = torch.zeros(len(queries), len(labels), dtype=torch.bool)
            positive[pairs] = True
            value = loss(SCALE * queries @ labels.T, positive)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    def case(count: int) -> tuple[Tensor, Tensor, Pairs]:
        matrices = [torch.empty(rows, dim).normal_(generator=random) for rows in (queries, count)]
        for vectors in matrices:
            vectors.div_(torch.linalg.vector_norm(vectors, dim=1, keepdim=True)).requires_grad_()
        # Each query's positives are spread over all labels, none twice.
        columns = torch.arange(queries * POSITIVES) * 7919 % count
        rows = torch.arange(queries).repeat_interleave(POSITIVES)
        return matrices[0], matrices[1], (rows, columns)

    run(*case(64))
    prepared = case(labels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    value = run(*prepared)
    seconds = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": round(seconds, 3), "mb": round(grown * 1024 / 1e6, 1), "loss": value}


def apart(way: str, name: str, labels: int, arguments: argparse.Namespace) -> dict[str, float]:
    """The same in a process of its own."""
    sizes = (arguments.queries, labels, arguments.dim, arguments.chunk)
    command = [sys.executable, __file__, "--one", way, name, *map(str, sizes)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    answer: dict[str, float] = json.loads(output)
    return answer


def row(name: str, labels: int, arguments: argparse.Namespace) -> dict[str, Any]:
    streamed = apart("streamed", name, labels, arguments)
    of_gradients = round(4e-6 * arguments.dim * (labels + arguments.queries), 1)
    found: dict[str, Any] = {"loss": name, "labels": labels, "gradients mb": of_gradients, "streamed": streamed}
    if 4 * arguments.queries * labels <= MOST_BYTES:
        direct = apart("direct", name, labels, arguments)
        assert abs(direct["loss"] - streamed["loss"]) <= 1e-4 * abs(direct["loss"]), (direct, streamed)
        found["direct"] = direct
        found["memory direct/streamed"] = round(direct["mb"] / max(streamed["mb"], 0.1), 2)
        found["time direct/streamed"] = round(direct["seconds"] / streamed["seconds"], 2)
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        way, name, *sizes = sys.argv[2:]
        queries, labels, dim, chunk = map(int, sizes)
        print(json.dumps(measure(way, name, queries, labels, dim, chunk)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--labels", type=int, nargs="+", default=list(LABELS))
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=RESULTS / "bounded_memory.json")
    arguments = parser.parse_args()
    wanted = [(name, labels) for name, most in LOSSES.items() for labels in arguments.labels if labels <= most]
    rows = [row(name, labels, arguments) for name, labels in wanted]
    settings = {"queries": arguments.queries, "dim": arguments.dim, "chunk": arguments.chunk, "threads": 1}
    result = {"machine": describe(), **settings, "positives per query": POSITIVES, "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
