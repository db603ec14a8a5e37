from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from index import BundleError, InputError
from service import Settings
from service.serving import serve

RUN = "import sys; from cli.serve import serve; serve(sys.argv[1:])"


@contextmanager
def running(collection: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", RUN, str(collection), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found, process.stderr.read() if process.stderr else ""
            yield process, found[0]
        finally:
            process.kill()


def call(method: str, url: str, body: object = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_it_answers_at_the_printed_address_and_ends_well_when_asked_to(collection: Path) -> None:
    for wish in (signal.SIGTERM, signal.SIGINT):
        with running(collection) as (process, address):
            assert call("GET", f"{address}/readyz") == (200, {"status": "ready"})
            # The test client decodes a percent sign in a path twice; a real server does not.
            assert call("PUT", f"{address}/v1/labels/%252F%2F", {"text": "a"})[1]["id"] == "%2F/"
            # More than is taken, from a client that sends all of it before it looks for an answer.
            status, problem = call("POST", f"{address}/v1/predict", {"inputs": [{"text": "a" * 10_000_000}]})
            assert (status, problem["limit"]) == (413, Settings().max_body_bytes)
            idle = socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])))
            began = time.monotonic()
            process.send_signal(wish)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - began < 5
            idle.close()
            assert process.stdout is not None and process.stderr is not None
            assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_a_taken_port_is_told_before_the_collection_is_opened(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"^127\.0\.0\.1:{port}: is in use; choose another with --port$"):
            serve(tmp_path / "no collection here", Settings(port=port))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "not a host"])
def test_an_address_that_is_not_ours_is_told(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match=f"{host}.*--host"):
        serve(tmp_path, Settings(host=host, port=0))


def test_a_folder_that_is_no_collection_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no collection here"):
        serve(tmp_path, Settings(port=0))
