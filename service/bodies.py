"""From the bytes of a request to the model that they have to be."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from index.errors import InputError
from index.strict_json import parse_json
from service.errors import MALFORMED, MEDIA_TYPE, ProblemError, invalid_body, too_large
from service.live import live

Model = TypeVar("Model", bound=BaseModel)
# Longer bodies are parsed on a thread, for other requests would feel it.
_SHORT_BYTES = 16_384


async def read_body(request: Request, model: type[Model], **most: int) -> Model:
    """The body as this model; `most` names its lists and how many items each may have.

    Raises ProblemError when it is not called JSON, is not JSON, has too many items, or is JSON of another shape.
    """
    # Read whatever it is called: many clients see no answer when it comes while they still send.
    body = await request.body()
    kind = request.headers.get("content-type", "")
    name, _, parameters = kind.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if name.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise ProblemError(MEDIA_TYPE, f"Content-Type is {kind!r}; send application/json in UTF-8")
    if len(body) <= _SHORT_BYTES:
        return parse(model, body, **most)
    return await live(request).in_batch_thread(lambda: parse(model, body, **most))


def parse(model: type[Model], body: bytes, **most: int) -> Model:
    """The body as this model, as `read_body` says."""
    values = _read_json(body)
    # Before the items are looked at: a million of them shall cost no more than being counted.
    for name, limit in most.items():
        items = values.get(name) if isinstance(values, dict) else None
        if isinstance(items, list) and len(items) > limit:
            raise too_large(name, limit, len(items))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_body(error) from error


def _read_json(body: bytes) -> Any:
    try:
        return parse_json(body.decode("utf-8"))
    except InputError as error:
        raise ProblemError(MALFORMED, f"the body {error}") from error
    except UnicodeDecodeError as error:
        raise ProblemError(MALFORMED, f"the body is not UTF-8: byte {error.start} is not valid") from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ProblemError(MALFORMED, f"the body is not JSON: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise ProblemError(
            MALFORMED, "the body is not JSON that can be read: a number or the nesting is too large"
        ) from error
