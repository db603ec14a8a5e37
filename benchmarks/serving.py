"""The service under load from another process on the same machine, and labels added while it serves.

    python benchmarks/serving.py COLLECTION CORPUS [--connections 8] [--requests 8000] [--additions 200]

Queries are the texts of the corpus' test split, in file order. One worker. Writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from machine import RESULTS, describe
from training.corpus import read_records, split_path

LOAD = Path(__file__).with_name("serving_load.py")


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(values, share)), 2) for share in (50, 90, 99, 100)}


def start(collection: Path) -> tuple[subprocess.Popen[str], int]:
    """A service with one worker on a free port."""
    command = [sys.executable, "-m", "cli", "serve", str(collection), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, int(line.strip().rstrip("/").rsplit(":", 1)[1].split("/")[0].split()[0])


def load(port: int, connections: int, requests: int, bodies: list[bytes], rate: int = 0) -> dict[str, object]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"\n".join(bodies))
        file.flush()
        command = [sys.executable, str(LOAD), str(port), str(connections), str(requests), str(rate), file.name]
        measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "connections": connections,
        "requests": len(measured["latencies_ms"]),
        "requests_per_second": round(len(measured["latencies_ms"]) / measured["seconds"]),
        "statuses": measured["statuses"],
        "latency_ms": percentiles(measured["latencies_ms"]),
    }


def add_labels(port: int, count: int) -> dict[str, object]:
    latencies = []
    for number in range(count):
        body = json.dumps({"text": f"bench-{number}: a label that the benchmark adds"}).encode()
        address = f"http://127.0.0.1:{port}/v1/labels/bench-{number}?wait=true"
        request = Request(address, body, {"Content-Type": "application/json"}, method="PUT")
        began = time.perf_counter()
        with urlopen(request) as answer:
            answer.read()
        latencies.append(1000 * (time.perf_counter() - began))
    for number in range(count):
        with urlopen(Request(f"http://127.0.0.1:{port}/v1/labels/bench-{number}", method="DELETE")) as answer:
            answer.read()
    return {"additions": count, "latency_ms": percentiles(latencies)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--additions", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "serving.json")
    arguments = parser.parse_args()
    path = split_path(arguments.corpus, "test")
    assert path is not None, "the corpus has no test split"
    texts = [record.text for record in read_records(path)][:4000]
    bodies = [json.dumps({"inputs": [{"text": text}], "top_k": 10}).encode() for text in texts]
    short = [json.dumps({"inputs": [{"text": text[:60]}], "top_k": 10}).encode() for text in texts]
    process, port = start(arguments.collection)
    try:
        load(port, 1, 300, bodies)
        result = {
            "machine": describe(),
            "characters_per_text": round(float(np.mean([len(text) for text in texts])), 1),
            "one connection": load(port, 1, arguments.requests // 8, bodies),
            "closed loop": load(port, arguments.connections, arguments.requests, bodies),
            "closed loop, first 60 characters": load(port, arguments.connections, arguments.requests, short),
            "200 requests a second": load(port, arguments.connections, arguments.requests // 4, bodies, 200),
            "400 requests a second": load(port, arguments.connections, arguments.requests // 4, bodies, 400),
            "label added, wait=true": add_labels(port, arguments.additions),
        }
    finally:
        process.terminate()
        process.wait(timeout=30)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))


if __name__ == "__main__":
    main()
