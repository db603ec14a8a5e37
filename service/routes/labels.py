"""`/v1/labels`: see, add, replace and remove labels while the service runs."""

from __future__ import annotations

import base64
import json
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from index.changes import PutLabel
from index.errors import InputError, UnknownLabelError
from index.snapshot import Snapshot
from service.bodies import read_body
from service.errors import MALFORMED, ProblemError, invalid_fields, too_large
from service.live import live
from service.openapi import problems, takes
from service.schemas import MAX_PAGE, LabelAnswer, LabelBody, LabelPage, LabelRemoved, LabelShown, LabelStored
from service.settings import Settings

router = APIRouter(tags=["labels"])
LabelId = Annotated[str, Path(alias="id", description="May hold any printable characters, slashes too.")]
# A search looks at so many rows for one page: a page may come back short, but never late.
_SCANNED_ROWS = 20_000
# Whether a vector has as many as the model's is judged later; this keeps a body of millions from being read through.
_MOST_NUMBERS = 65_536


@router.get("/v1/labels", summary="List labels", responses=problems(400, 422))
def list_labels(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Labels on a page at most.")] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    q: Annotated[str | None, Query(description="Only labels with this in id or text, in any case.")] = None,
) -> LabelPage:
    """Labels in row order. A page of a search may be short; go on until `next_cursor` is null."""
    snapshot = live(request).collection.snapshot
    first = 0 if cursor is None else _read_cursor(snapshot, cursor)
    wanted = (q or "").casefold()
    found: list[LabelAnswer] = []
    row = first
    while row < snapshot.labels.rows and len(found) < limit and row - first < _SCANNED_ROWS:
        if row not in snapshot.labels.removed:
            label = snapshot.labels[row]
            if wanted in label.id.casefold() or wanted in label.text.casefold():
                found.append(LabelAnswer(label.id, label.text))
        row += 1
    return LabelPage(found, _make_cursor(snapshot, row) if row < snapshot.labels.rows else None)


@router.get("/v1/labels/{id:path}", summary="Show a label", responses=problems(400, 404, 422))
async def show_label(request: Request, label: LabelId) -> LabelShown:
    """Its id and text, and the fields with which it was put."""
    labels = live(request).collection.snapshot.labels
    row = labels.find(_readable(request, label))
    if row is None:
        raise UnknownLabelError(f"label {label!r}: there is no such label")
    found = labels[row]
    return LabelShown(label, found.text, found.fields)


@router.put(
    "/v1/labels/{id:path}",
    summary="Add or replace a label",
    status_code=201,
    responses={
        200: {"model": LabelStored, "description": "It was there and is replaced"},
        202: {"model": LabelStored, "description": "It is on disk (wait=false)"},
        **problems(400, 413, 415, 422),
    },
    openapi_extra=takes(LabelBody),
)
async def put_label(
    request: Request,
    response: Response,
    label: LabelId,
    wait: Annotated[bool, Query(description="Answer once it is searchable, not only on disk.")] = True,
) -> LabelStored:
    """The label as it shall be, whole: what is left out is gone. It is on disk and searchable when this answers."""
    served = live(request)
    body = await read_body(request, LabelBody, examples=served.settings.max_examples, vector=_MOST_NUMBERS)
    vector = None if body.vector is None else tuple(body.vector)
    put = PutLabel(_readable(request, label), body.text or "", tuple(body.examples or ()), vector, body.fields or None)
    _check(put, served.settings)
    try:
        served.collection.snapshot.check_fields(put.fields, "label")
    except InputError as error:
        raise invalid_fields("#/fields", error) from error
    change, new = await served.put(put)
    if not wait:
        response.status_code = 202
    elif not new:
        response.status_code = 200
    return LabelStored(put.id, put.text, put.fields, put.examples, change)


@router.delete("/v1/labels/{id:path}", summary="Remove a label", responses=problems(400, 404, 422))
async def remove_label(request: Request, label: LabelId) -> LabelRemoved:
    """It is predicted no more when this answers."""
    return LabelRemoved(label, await live(request).remove(_readable(request, label)))


def _readable(request: Request, label: str) -> str:
    """The id itself. Raises ProblemError when the address is not UTF-8: servers put other characters for the faults."""
    try:
        unquote_to_bytes(request.scope.get("raw_path", b"")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(MALFORMED, "the label id in the address is not UTF-8") from error
    return label


def _check(put: PutLabel, settings: Settings) -> None:
    for text in (put.text, *put.examples):
        if len(text) > settings.max_text_characters:
            raise too_large("characters of a text", settings.max_text_characters, len(text))


def _make_cursor(snapshot: Snapshot, row: int) -> str:
    """Rows stay what they are as long as the bundle does, also when labels come and go."""
    position = json.dumps([snapshot.bundle.manifest.bundle, row]).encode()
    return base64.urlsafe_b64encode(position).decode().rstrip("=")


def _read_cursor(snapshot: Snapshot, cursor: str) -> int:
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        bundle, row = json.loads(base64.b64decode(padded, b"-_", validate=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise ProblemError(MALFORMED, "cursor: was not given out by this service; begin again without one") from error
    if bundle != snapshot.bundle.manifest.bundle:
        raise ProblemError(MALFORMED, "cursor: belongs to another bundle; begin again without one")
    if type(row) is not int or row < 0:
        raise ProblemError(MALFORMED, "cursor: was not given out by this service; begin again without one")
    return row
