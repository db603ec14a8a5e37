"""What a caller is told when something goes wrong: application/problem+json (RFC 9457) for every error."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from index.errors import InputError, LabelspaceError, UnknownLabelError

PROBLEM_JSON = "application/problem+json"
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_MOST_FAULTS = 20
_POINTER_CHARACTERS = 200
_log = logging.getLogger("labelspace.service")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a request: `pointer` says where in the body (RFC 6901), `parameter` which one of the address."""

    detail: str
    pointer: str | None = None
    parameter: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the caller sees it; `limit` and `actual` where something was too much."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: Sequence[Fault] | None = None
    limit: int | None = None
    actual: int | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; its name makes the stable `type`."""

    status: int
    name: str
    title: str


MALFORMED = Kind(400, "malformed", "The request cannot be read")
UNKNOWN_LABEL = Kind(404, "unknown-label", "There is no such label")
NOT_FOUND = Kind(404, "not-found", "There is nothing at this address")
METHOD_NOT_ALLOWED = Kind(405, "method-not-allowed", "This address does not take this method")
TOO_LARGE = Kind(413, "too-large", "The request is more than the service takes")
MEDIA_TYPE = Kind(415, "unsupported-media-type", "The body has to be JSON")
INVALID = Kind(422, "invalid", "The request is not valid")
INTERNAL = Kind(500, "internal", "The service failed")
NOT_STORED = Kind(500, "not-stored", "The change could not be stored")
NOT_READY = Kind(503, "not-ready", "The service is not ready")
BEHIND = Kind(503, "behind", "The change that was asked for has not arrived")
_BY_STATUS = {kind.status: kind for kind in (NOT_FOUND, METHOD_NOT_ALLOWED, MALFORMED, TOO_LARGE, INVALID)}


class ProblemError(Exception):
    """Ends a request with this problem."""

    def __init__(
        self, kind: Kind, detail: str, *, faults: Sequence[Fault] = (), limit: int | None = None, actual: int = 0
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.faults = faults
        self.limit = limit
        self.actual = None if limit is None else actual


def too_large(what: str, limit: int, actual: int) -> ProblemError:
    """The problem of more bytes, inputs or characters than are taken."""
    return ProblemError(TOO_LARGE, f"{what}: {actual} is more than the limit of {limit}", limit=limit, actual=actual)


def invalid_body(error: ValidationError) -> ProblemError:
    """The problem of a body that is JSON but not what was asked for."""
    faults = tuple(
        Fault(_in_our_words(found["type"], found["msg"]), pointer=_pointer(found["loc"]))
        for found in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FAULTS]
    )
    first = faults[0]
    return ProblemError(INVALID, f"{first.pointer}: {first.detail}", faults=faults)


def invalid_fields(pointer: str, error: InputError) -> ProblemError:
    """The problem of fields at `pointer` that the model does not read, or whose values are none."""
    return ProblemError(INVALID, f"{pointer}: {error}", faults=(Fault(str(error), pointer=pointer),))


def problem_response(scope: Scope, error: Exception) -> Response:
    """The answer to a request that ended with `error`; what nobody foresaw is logged and not shown."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})
        if error.status_code == 405:
            allowed = _allowed_methods(scope)
            headers["Allow"] = ", ".join(allowed)
            if scope["method"] == "OPTIONS":
                return Response(status_code=204, headers=headers)
    known = _known(scope, error)
    if known.kind in (NOT_READY, BEHIND):
        headers["Retry-After"] = "1"
    problem = Problem(
        f"urn:labelspace:problem:{known.kind.name}",
        known.kind.title,
        known.kind.status,
        known.detail,
        _address(scope),
        request_id(scope),
        known.faults or None,
        known.limit,
        known.actual,
    )
    values = TypeAdapter(Problem).dump_python(problem, exclude_none=True)
    # ASCII only: whatever the request held, even half a surrogate pair, can be said back.
    return Response(json.dumps(values), known.kind.status, headers, PROBLEM_JSON)


async def handle(request: Request, error: Exception) -> Response:
    """`problem_response` in the form that the framework calls; as a coroutine it needs no thread."""
    return problem_response(request.scope, error)


def request_id(scope: Scope) -> str:
    """The id that this request was given."""
    return str(scope.get("state", {}).get("request_id", ""))


def _known(scope: Scope, error: Exception) -> ProblemError:
    match error:
        case ProblemError():
            return error
        case RequestValidationError():
            return _invalid_parameters(error)
        case HTTPException(status_code=404 | 405 as status):
            return ProblemError(_BY_STATUS[status], f"{scope['method']} {_address(scope)}: see /docs for what there is")
        case HTTPException():
            kind = _BY_STATUS.get(error.status_code, Kind(error.status_code, "http", "The request failed"))
            return ProblemError(kind, str(error.detail))
        case UnknownLabelError():
            return ProblemError(UNKNOWN_LABEL, str(error))
        case InputError():
            return ProblemError(INVALID, str(error))
        case LabelspaceError():
            _log.error("request %s: %s", request_id(scope), error)
            return ProblemError(NOT_STORED, "the change was not stored; the service's log says why")
    _log.error("request %s: %s %s failed", request_id(scope), scope["method"], _address(scope), exc_info=error)
    return ProblemError(INTERNAL, "the request failed for a reason that is in the service's log under its request_id")


def _invalid_parameters(error: RequestValidationError) -> ProblemError:
    faults = tuple(
        Fault(found["msg"], parameter=str(found["loc"][-1])) for found in list(error.errors())[:_MOST_FAULTS]
    )
    return ProblemError(INVALID, f"{faults[0].parameter}: {faults[0].detail}", faults=faults)


def _in_our_words(kind: str, message: str) -> str:
    return {"missing": "is missing", "model_type": "must be an object"}.get(kind, message)


def _pointer(location: Sequence[str | int]) -> str:
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in location)
    whole = "".join(f"/{quote(part, safe='~', errors='replace')}" for part in parts)
    return f"#{whole[:_POINTER_CHARACTERS]}"


def _address(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.decode("ascii", "replace")


def _allowed_methods(scope: Mapping[str, object]) -> list[str]:
    """What this address takes; the framework itself names only the methods of the first route that fits."""
    routes = scope["app"].router.routes  # type: ignore[attr-defined]  # the application, by the framework's contract
    allowed = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return sorted([*allowed, "OPTIONS", *(["HEAD"] if "GET" in allowed else [])])
