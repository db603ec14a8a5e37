"""Runs the service on a port until it is asked to stop."""

from __future__ import annotations

import errno
import gc
import logging
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from index.collection import Collection
from index.errors import InputError
from service.app import create_app
from service.settings import Settings


def serve(collection: Path, settings: Settings) -> None:
    """Serve a collection until Ctrl-C or SIGTERM; says where on standard output once it answers.

    Raises InputError when the address cannot be had, BundleError when the collection cannot be opened.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with _listen(settings) as listener, _open(collection, settings) as opened:
        config = uvicorn.Config(
            create_app(opened, settings),
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.stop_seconds,
        )
        server = _Server(config)
        # uvicorn gives the signal that stopped it back to the handler from before: this one makes it a normal end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.handle_exit)
        # What is loaded stays; to look through it for garbage would hold up requests for tens of milliseconds.
        gc.freeze()
        server.run([listener])


def _open(collection: Path, settings: Settings) -> Collection:
    return Collection(collection, log=settings.log, device=settings.device)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            sys.stdout.write(f"Labelspace answers on http://{shown}:{port} (Ctrl-C stops it)\n")
        sys.stdout.flush()


def _listen(settings: Settings) -> socket.socket:
    """A listening socket, got before the slow opening of the collection so that a taken port is told at once."""
    place = f"{settings.host}:{settings.port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), settings.port), family=family)
    except socket.gaierror as error:
        raise InputError(f"{settings.host}: is no address of this machine; choose another with --host") from error
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                raise InputError(f"{place}: is in use; choose another with --port") from error
            case errno.EACCES:
                raise InputError(f"{place}: is not for this user; choose a port above 1023 with --port") from error
        raise InputError(f"{place}: cannot be listened on ({error.strerror}); choose another with --host") from error
