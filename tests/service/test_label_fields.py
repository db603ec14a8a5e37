"""Labels with fields over HTTP: put, shown, found, replaced whole, and refused by the name of a field."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import create_app

Refused = Callable[..., dict[str, Any]]
FIELDS = {"type": "of a kind of its own", "lang": ["日本", 3, True]}


@pytest.fixture
def folder(field_collection: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(field_collection, tmp_path / "own"))


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(folder)) as client:
        yield client


def best(client: TestClient, fields: dict[str, Any]) -> str:
    answer = client.post("/v1/predict", json={"inputs": [{"fields": fields}], "top_k": 1})
    return str(answer.json()["predictions"][0]["labels"][0]["id"])


def test_a_label_of_fields_alone_is_found_shown_and_replaced_whole(client: TestClient) -> None:
    assert best(client, FIELDS) != "new"
    stored = client.put("/v1/labels/new", json={"fields": FIELDS})
    assert stored.status_code == 201
    assert stored.json() == {"id": "new", "text": "", "fields": FIELDS, "examples": [], "change": 1}
    assert client.get("/v1/labels/new").json() == {"id": "new", "text": "", "fields": FIELDS}
    assert best(client, FIELDS) == "new"
    assert client.put("/v1/labels/new", json={"text": "zebra", "fields": {}}).json()["fields"] is None
    assert client.get("/v1/labels/new").json() == {"id": "new", "text": "zebra", "fields": None}
    assert client.get("/v1/labels/1-fr").json() == {"id": "1-fr", "text": "label 1-fr", "fields": None}


def test_it_outlives_a_restart(folder: Path) -> None:
    with TestClient(create_app(folder)) as client:
        assert client.put("/v1/labels/1-fr", json={"text": "x", "fields": FIELDS}).status_code == 200
    with TestClient(create_app(folder)) as client:
        assert client.get("/v1/labels/1-fr").json()["fields"] == FIELDS


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"text": "x", "fields": {"colour": {"a": 1}}}, "field 'colour' must be a string"),
        ({"fields": {"type": {"a": 1}}}, "field 'type' must be a string"),
        ({"examples": ["x"], "fields": {"type": ["x"] * 1001}}, "field 'type' has 1001 values"),
    ],
)
def test_fields_are_refused_by_name(client: TestClient, refused: Refused, body: dict[str, Any], fault: str) -> None:
    problem = refused(client.put("/v1/labels/new", json=body), 422, "invalid")
    (found,) = problem["errors"]
    assert found["pointer"] == "#/fields"
    assert found["detail"].startswith(fault)
    refused(client.get("/v1/labels/new"), 404, "unknown-label")


@pytest.mark.parametrize("fields", [None, {}, {"type": None, "lang": []}])
def test_fields_that_say_nothing_are_no_label(client: TestClient, refused: Refused, fields: object) -> None:
    problem = refused(client.put("/v1/labels/new", json={"text": " ", "fields": fields}), 422, "invalid")
    assert "give it a text, fields, examples or a vector" in problem["detail"]


def test_the_openapi_document_knows_fields_of_labels(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for model in ("LabelBody", "LabelStored", "LabelShown"):
        assert "fields" in schemas[model]["properties"]
