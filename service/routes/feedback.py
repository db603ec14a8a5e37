"""`/v1/feedback`, `/v1/examples/remove`: what is right and wrong for a text, and what shall be an example no more."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from index.changes import Feedback, RemoveExample
from index.errors import InputError
from service.bodies import read_body
from service.errors import invalid_fields, too_large
from service.live import LiveCollection, live
from service.openapi import problems, takes
from service.schemas import ExampleBody, FeedbackBody, Stored

router = APIRouter(tags=["feedback"])


@router.post(
    "/v1/feedback",
    summary="Say which labels are right and wrong for a text",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=takes(FeedbackBody),
)
async def give_feedback(request: Request) -> Stored:
    """The text becomes an example of the `right` labels, and counts against the `wrong` ones. It does so when this
    answers, and is on disk."""
    served = live(request)
    most = served.settings.max_examples
    body = await read_body(request, FeedbackBody, right=most, wrong=most)
    _check(served, body.text, body.fields)
    said = Feedback(body.text or "", tuple(body.right), tuple(body.wrong), body.fields or None)
    return Stored(await served.write(said))


@router.post(
    "/v1/examples/remove",
    summary="Remove an example",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=takes(ExampleBody),
)
async def remove_example(request: Request) -> Stored:
    """The text is an example of the label no more, of none where no label is named, whether it came with feedback,
    with a label or from training. What the encoder learned from it in training stays."""
    served = live(request)
    body = await read_body(request, ExampleBody)
    _check(served, body.text, body.fields)
    return Stored(await served.write(RemoveExample(body.text or "", body.label, body.fields or None)))


def _check(served: LiveCollection, text: str | None, fields: dict[str, object] | None) -> None:
    length = len(text or "")
    if length > served.settings.max_text_characters:
        raise too_large("characters of the text", served.settings.max_text_characters, length)
    try:
        served.collection.snapshot.check_fields(fields)
    except InputError as error:
        raise invalid_fields("#/fields", error) from error
