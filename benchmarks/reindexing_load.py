"""The load process of benchmarks/reindexing.py: predictions at a fixed rate, until standard input ends.

    python benchmarks/reindexing_load.py PORT CONNECTIONS RATE BODIES

RATE is in requests a second, and is kept whatever the answers take (an open loop): latencies count from when a request
was due, so that a service which stands still is seen by all that fall due meanwhile. BODIES is a file with one request
body a line. Writes one JSON list an answer: when it was due (seconds of the monotonic clock), latency in ms, HTTP
status (0: no answer), and the bundle that it was made from.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from itertools import cycle
from pathlib import Path

Due = tuple[float, bytes]


async def connection(
    port: int, waiting: asyncio.Queue[Due | None], answers: list[tuple[float, float, int, str]]
) -> None:
    """Send what falls due, one after another; a connection that breaks is made anew."""
    opened: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while (item := await waiting.get()) is not None:
        due, body = item
        try:
            if opened is None:
                opened = await asyncio.open_connection("127.0.0.1", port)
            status, answer = await asyncio.wait_for(ask(*opened, port, body), timeout=10)
            bundle = str(json.loads(answer).get("bundle", "")) if status == 200 else ""
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            if opened is not None:
                opened[1].close()
            opened, status, bundle = None, 0, ""
        answers.append((due, 1000 * (time.monotonic() - due), status, bundle))
    if opened is not None:
        opened[1].close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, body: bytes) -> tuple[int, bytes]:
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
    return int(answer.split(b" ", 2)[1]), await reader.readexactly(length)


async def load(port: int, connections: int, rate: float, bodies: list[bytes]) -> list[tuple[float, float, int, str]]:
    waiting: asyncio.Queue[Due | None] = asyncio.Queue()
    answers: list[tuple[float, float, int, str]] = []
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    senders = [asyncio.create_task(connection(port, waiting, answers)) for _ in range(connections)]
    start = time.monotonic()
    for number, body in enumerate(cycle(bodies)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if ended.is_set():
            break
        waiting.put_nowait((due, body))
    for _ in senders:
        waiting.put_nowait(None)
    await asyncio.gather(*senders)
    return answers


if __name__ == "__main__":
    port, connections, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    lines = Path(sys.argv[4]).read_bytes().splitlines()
    for answer in asyncio.run(load(port, connections, rate, lines)):
        print(json.dumps(answer))
