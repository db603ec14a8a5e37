"""The load process of benchmarks/serving.py: requests over a few loopback connections, latencies as JSON.

    python benchmarks/serving_load.py PORT CONNECTIONS REQUESTS RATE BODIES

RATE is in requests a second over all connections; 0 is a closed loop, in which each connection sends its next request
as soon as it has an answer. BODIES is a file with one request body a line; they are sent in turn.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Seen:
    """What all connections together have seen: seconds of each answer, and the HTTP statuses that came."""

    latencies: list[float]
    statuses: set[int]


async def connection(port: int, bodies: list[bytes], count: int, pause: float, seen: Seen) -> None:
    """Send `count` POST /v1/predict requests one after another, `pause` seconds apart, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter() + pause * random.random()
    for number, body in zip(range(count), cycle(bodies), strict=False):
        if pause:
            await asyncio.sleep(max(0.0, start + number * pause - time.perf_counter()))
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        seen.latencies.append(time.perf_counter() - began)
        seen.statuses.add(int(answer.split(b" ", 2)[1]))
    writer.close()
    await writer.wait_closed()


async def load(port: int, connections: int, requests: int, rate: int, bodies: list[bytes]) -> dict[str, object]:
    seen = Seen([], set())
    pause = connections / rate if rate else 0.0
    each = requests // connections
    began = time.perf_counter()
    parts = [bodies[place::connections] for place in range(connections)]
    await asyncio.gather(*(connection(port, part, each, pause, seen) for part in parts))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "statuses": sorted(seen.statuses), "latencies_ms": [1000 * t for t in seen.latencies]}


if __name__ == "__main__":
    port, connections, requests, rate = (int(value) for value in sys.argv[1:5])
    lines = Path(sys.argv[5]).read_bytes().splitlines()
    print(json.dumps(asyncio.run(load(port, connections, requests, rate, lines))))
