"""The parts of the OpenAPI document that FastAPI cannot see, since bodies are read and errors made without it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from service.errors import PROBLEM_JSON, Problem
from service.schemas import ExampleBody, FeedbackBody, LabelBody, PredictRequest

_COMPONENT = "#/components/schemas/{model}"


class Application(FastAPI):
    """FastAPI whose document also has the models that only this module names."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schemas = super().openapi().setdefault("components", {}).setdefault("schemas", {})
            models = (PredictRequest, LabelBody, FeedbackBody, ExampleBody, Problem)
            _, found = TypeAdapter.json_schemas(
                [(model.__name__, "validation", TypeAdapter(model)) for model in models], ref_template=_COMPONENT
            )
            schemas.update(found["$defs"])
        return super().openapi()


def takes(model: type) -> dict[str, Any]:
    """Says in the document that a route takes this model as its body."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _reference(model)}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Says in the document that a route answers these statuses with a problem; every route may answer 500 and 503."""
    answer = {"description": "Problem", "content": {PROBLEM_JSON: {"schema": _reference(Problem)}}}
    return {status: answer for status in (*statuses, 500, 503)}


def _reference(model: type) -> dict[str, str]:
    return {"$ref": _COMPONENT.format(model=model.__name__)}
