"""A PostgreSQL server for tests, and a proxy before it that loses connections at will."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


@contextmanager
def postgres() -> Iterator[str]:
    """A server with data of its own, and its URL; it listens on a Unix socket only."""
    with warnings.catch_warnings():
        # It says so where the system has no folder for run-time files.
        warnings.simplefilter("ignore")
        from pgserver.postgres_server import get_server

    # Not among the temporary folders of pytest: the server runs as a user of its own, and has to reach it.
    folder = Path(tempfile.mkdtemp(prefix="labelspace-postgres-"))
    server = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class Proxy:
    """A TCP port before a server's Unix socket. `cut`: given what a client sends, "before" loses the connection
    without passing it on, "after" once it was answered, None passes it on."""

    def __init__(self, url: str) -> None:
        folder = parse_qs(urlsplit(url).query)["host"][0]
        self._target = f"{folder}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres"
        self.cut: Callable[[bytes], str | None] = lambda sent: None
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            where = None
            while sent := _receive(client):
                where = self.cut(sent)
                if where == "after":
                    # What the server answers is lost; it did what it was told.
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(sent)
                    server.shutdown(socket.SHUT_WR)
                if where is not None:
                    break
                server.sendall(sent)
            if where != "after":
                with contextlib.suppress(OSError):
                    server.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    while data := _receive(source):
        with contextlib.suppress(OSError):
            target.sendall(data)


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(1 << 16)
    except OSError:
        return b""
