"""Labels put over HTTP are there after the service was killed, every time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

# Hundreds of kills are the business of benchmarks/faults.py.
KILLS = 5


def start(collection: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "cli", "serve", str(collection), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return process, "http://127.0.0.1:" + line.rstrip().rsplit(":", 1)[1].split("/")[0].split()[0]


def call(method: str, url: str, body: object = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method), timeout=20) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def all_labels(address: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    cursor = ""
    while True:
        page = call("GET", f"{address}/v1/labels?limit=500{cursor}")
        for label in page["labels"]:  # type: ignore[attr-defined]
            labels[label["id"]] = label["text"]
        if page["next_cursor"] is None:
            return labels
        cursor = f"&cursor={page['next_cursor']}"


def test_every_acknowledged_label_survives_kills(collection: Path) -> None:
    chooser, sent, acknowledged = random.Random(3), 0, set[int]()
    for _ in range(KILLS):
        process, address = start(collection)
        killer = threading.Timer(0.05 + 0.2 * chooser.random(), os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        try:
            while True:
                sent += 1
                call(
                    "PUT",
                    f"{address}/v1/labels/kill-{sent}?wait=true",
                    {"text": f"label number {sent} of the kill test"},
                )
                acknowledged.add(sent)
        except (URLError, OSError, HTTPException):
            pass
        killer.join()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    process, address = start(collection)
    try:
        labels = all_labels(address)
        assert {f"kill-{number}" for number in acknowledged} <= set(labels)
        assert len(acknowledged) >= KILLS
        # The trained labels are all there, and beyond them only what was sent: at most one unanswered per kill.
        assert {f"s{number}" for number in range(40)} <= set(labels)
        assert set(labels) - {f"s{number}" for number in range(40)} <= {f"kill-{number}" for number in range(sent + 1)}
        assert len(labels) - 40 - len(acknowledged) <= KILLS
        last = max(acknowledged)
        text = f"label number {last} of the kill test"
        assert labels[f"kill-{last}"] == text
        answer = call("POST", f"{address}/v1/predict", {"inputs": [{"text": "apple pie"}], "top_k": 1})
        assert answer["predictions"][0]["labels"][0]["id"] == "s0"  # type: ignore[index]
        began = time.monotonic()
        call("DELETE", f"{address}/v1/labels/kill-{last}")
        assert f"kill-{last}" not in all_labels(address)
        assert time.monotonic() - began < 10
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        process.stdout and process.stdout.close()
