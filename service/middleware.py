"""What every request goes through: an id, a last resort for errors, HEAD, and the limit on its bytes."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import problem_response, too_large

_HEADER = b"x-request-id"
_BYTES = "bytes of the body"
_DISCARDED_BODIES = 8
_DISCARD_SECONDS = 5
_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIds:
    """Gives each request the id it brought (when it is a sane one) or a new one, and answers what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        brought = _header(scope, _HEADER)
        name = brought.decode() if _SANE_ID.fullmatch(brought) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = name
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                raise
            await problem_response(scope, error)(scope, receive, send_with_id)


class HeadAsGet:
    """Answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app({**scope, "method": "GET"}, receive, send_head)


class BodyLimit:
    """Refuses bodies of more than `limit` bytes: by their declared length, or while they are read."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared) > self.limit:
            # Who asks before sending (curl does) has sent nothing yet.
            if not _header(scope, b"expect"):
                await self._discard(receive)
            raise too_large(_BYTES, self.limit, int(declared))
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                await self._discard(receive)
                raise too_large(_BYTES, self.limit, seen)
            return message

        await self.app(scope, receive_counted, send)

    async def _discard(self, receive: Receive) -> None:
        """Read on for a while: many clients see no answer, only a broken connection, when it is cut as they send."""
        left = _DISCARDED_BODIES * self.limit
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body"):
                        return


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")
