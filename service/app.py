"""Puts the service together: routes, errors, limits, and a collection that is open as long as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from index.collection import Collection
from service.errors import ProblemError, handle
from service.live import LiveCollection
from service.middleware import BodyLimit, HeadAsGet, RequestIds
from service.openapi import Application
from service.routes import feedback, labels, page, predict, status
from service.settings import Settings


def create_app(collection: Path | Collection, settings: Settings | None = None) -> FastAPI:
    """The service over a collection; a path is opened when the application starts and closed when it stops."""
    chosen = settings or Settings()
    app = Application(
        title="Labelspace",
        version=version("labelspace"),
        description="Ranks the labels of a text, and takes new labels while it runs.",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.live = LiveCollection(collection, chosen)
    for part in (predict, labels, feedback, status, page):
        app.include_router(part.router)
    for error in (HTTPException, RequestValidationError, ProblemError):
        app.add_exception_handler(error, handle)
    # The last one added is the first that a request meets.
    app.add_middleware(BodyLimit, limit=chosen.max_body_bytes)
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestIds)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    live: LiveCollection = app.state.live
    await live.open()
    try:
        yield
    finally:
        await live.close()
