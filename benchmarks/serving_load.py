"""The load process of benchmarks/serving.py: a closed loop over a few loopback connections, latencies as JSON.

    python benchmarks/serving_load.py PORT CONNECTIONS REQUESTS BODIES

BODIES is a file with one request body a line; they are sent in turn. It shares no process with the service.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import cycle
from pathlib import Path


async def connection(port: int, bodies: list[bytes], count: int, latencies: list[float], statuses: set[int]) -> None:
    """Send `count` POST /v1/predict requests one after another over one kept-alive connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _, body in zip(range(count), cycle(bodies), strict=False):
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
        latencies.append(time.perf_counter() - began)
        statuses.add(int(answer.split(b" ", 2)[1]))
    writer.close()
    await writer.wait_closed()


async def load(port: int, connections: int, requests: int, bodies: list[bytes]) -> dict[str, object]:
    latencies: list[float] = []
    statuses: set[int] = set()
    each = requests // connections
    began = time.perf_counter()
    parts = [bodies[place::connections] for place in range(connections)]
    await asyncio.gather(*(connection(port, part, each, latencies, statuses) for part in parts))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "statuses": sorted(statuses), "latencies_ms": [1000 * value for value in latencies]}


if __name__ == "__main__":
    port, connections, requests = (int(value) for value in sys.argv[1:4])
    lines = Path(sys.argv[4]).read_bytes().splitlines()
    print(json.dumps(asyncio.run(load(port, connections, requests, lines))))
