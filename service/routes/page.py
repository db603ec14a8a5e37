"""`/`: a page to try the service in a browser, made of a few files that need nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).parent.parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/")
async def index() -> FileResponse:
    """The page itself."""
    return FileResponse(_FOLDER / "index.html", media_type="text/html; charset=utf-8", headers=_HEADERS)


@router.get("/page.css")
async def style() -> FileResponse:
    """How it looks."""
    return FileResponse(_FOLDER / "page.css", media_type="text/css; charset=utf-8", headers=_HEADERS)


@router.get("/page.js")
async def script() -> FileResponse:
    """What it does."""
    return FileResponse(_FOLDER / "page.js", media_type="text/javascript; charset=utf-8", headers=_HEADERS)


@router.get("/icon.svg")
async def icon() -> FileResponse:
    """What a browser shows beside its title."""
    return FileResponse(_FOLDER / "icon.svg", media_type="image/svg+xml", headers=_HEADERS)
