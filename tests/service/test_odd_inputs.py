"""What is unusual in a request: each has an answer that is written down, and none is a failure of the service."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from service import create_app

Refused = Callable[..., dict[str, Any]]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(field_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = shutil.copytree(field_collection, tmp_path_factory.mktemp("odd") / "fields")
    with TestClient(create_app(Path(folder))) as client:
        yield client


def post(client: TestClient, one: str) -> Response:
    return client.post("/v1/predict", content=f'{{"inputs": [{one}], "top_k": 5}}'.encode(), headers=JSON)


def scores(client: TestClient, one: dict[str, Any]) -> dict[str, float]:
    answer = post(client, json.dumps(one))
    assert answer.status_code == 200, answer.text
    return {label["id"]: label["score"] for label in answer.json()["predictions"][0]["labels"]}


@pytest.mark.parametrize(
    "text",
    [
        "🚲👩‍👩‍👧‍👦🏳️‍🌈",
        "\u0378\U000e0fff\uffff\U0010ffff",
        "שלום עולם مرحبا بالعالم \u202e\u200f",
        "\u0000\u0001\u007f",
        "e\u0301\u0301\u0301" * 1000,
        "\ufeff",
        "\u200b",
        "a" * 100_000,
        "ﷺ" * 5000,
    ],
)
def test_unusual_characters_are_texts_like_others(client: TestClient, text: str) -> None:
    assert len(scores(client, {"text": text})) == 5
    assert len(scores(client, {"text": text, "fields": {"type": text, "lang": [text, "en"]}})) == 5


def test_one_character_ten_million_times(client: TestClient, refused: Refused) -> None:
    assert refused(post(client, json.dumps({"text": "a" * 10_000_000})), 413, "too-large")["limit"] == 8 << 20
    assert refused(post(client, json.dumps({"text": "a" * 5_000_000})), 413, "too-large")["limit"] == 100_000
    # Read is the beginning of a text only.
    read = client.get("/v1/info").json()["limits"]["text_characters_read"]
    assert scores(client, {"text": "a" * 100_000}) == scores(client, {"text": "a" * read})
    assert len(scores(client, {"text": "x", "fields": {"type": "a" * 5_000_000}})) == 5


def test_a_hundred_thousand_values_are_refused_by_name(client: TestClient, refused: Refused) -> None:
    one = json.dumps({"fields": {"lang": [str(value) for value in range(100_000)]}})
    problem = refused(post(client, one), 422, "invalid")
    assert problem["errors"][0]["pointer"] == "#/inputs/0/fields"
    assert "field 'lang' has 100000 values" in problem["detail"]


def test_numbers_are_what_their_strings_are(client: TestClient) -> None:
    assert scores(client, {"fields": {"type": 3}}) == scores(client, {"fields": {"type": "3"}})
    assert scores(client, {"fields": {"type": 3.0}}) == scores(client, {"fields": {"type": "3"}})
    assert scores(client, {"fields": {"type": True}}) == scores(client, {"fields": {"type": "true"}})
    assert len(scores(client, {"fields": {"type": 10**4000}})) == 5


@pytest.mark.parametrize(
    ("one", "status", "kind", "said"),
    [
        ('{"text": "x", "fields": {"type": NaN}}', 400, "malformed", "NaN is no JSON number"),
        ('{"text": "x", "fields": {"type": [Infinity]}}', 400, "malformed", "Infinity is no JSON number"),
        ('{"text": "x", "fields": {"type": -Infinity}}', 400, "malformed", "-Infinity is no JSON number"),
        ('{"text": "x", "fields": {"type": 1e999}}', 422, "invalid", "field 'type' is inf"),
        ('{"text": "x", "fields": {"type": ' + "9" * 5000 + "}}", 400, "malformed", "a number or the nesting"),
        ('{"text": "x", "text": "y"}', 400, "malformed", "the body has the key 'text' twice in one object"),
        ('{"fields": {"type": "a", "type": "a"}}', 400, "malformed", "the body has the key 'type' twice"),
        ('{"text": "x", "fields": {"type": {"a": {"b": 1}}}}', 422, "invalid", "field 'type' must be a string"),
        ('{"text": "x", "fields": {"type": [null]}}', 422, "invalid", "field 'type' must be a string"),
        ('{"text": "x", "fields": {"": "a"}}', 422, "invalid", "field '' is not read by this model"),
        ('{"text": "x", "fields": []}', 422, "invalid", "#/inputs/0/fields"),
        ('{"fields": []}', 422, "invalid", "#/inputs/0/fields"),
        ('{"text": ["x"], "fields": {"type": "a"}}', 422, "invalid", "#/inputs/0/text"),
        ('{"text": "", "fields": {}}', 422, "invalid", "#/inputs/0/text"),
        ('{"fields": {"type": "\\udfff"}}', 422, "invalid", "not valid Unicode"),
        ('{"fields": ' + '{"type": ' * 100_000, 400, "malformed", "nesting"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused_and_told(
    client: TestClient, refused: Refused, one: str, status: int, kind: str, said: str
) -> None:
    problem = refused(post(client, one), status, kind)
    assert said in problem["detail"]
    assert len(problem.get("errors", [0])) == 1
    label = client.put("/v1/labels/new", content=one.encode(), headers=JSON)
    assert 400 <= label.status_code < 500
    assert client.get("/v1/labels/new").status_code == 404


def test_a_twice_given_key_of_a_label_is_refused(client: TestClient, refused: Refused) -> None:
    answer = client.put("/v1/labels/new", content=b'{"text": "a", "text": "b"}', headers=JSON)
    assert "the key 'text' twice" in refused(answer, 400, "malformed")["detail"]


@pytest.mark.parametrize("fields", [None, {}, {"type": None}, {"type": [], "lang": None}])
def test_fields_that_say_nothing_change_nothing(client: TestClient, fields: object) -> None:
    assert scores(client, {"text": "größe", "fields": fields}) == scores(client, {"text": "größe"})
