"""Fields over HTTP: answers are the snapshot's, and a field that is not read is refused by name and alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index.snapshot import Snapshot
from service import create_app
from tests_support import KINDS

Refused = Callable[..., dict[str, Any]]
TEXT = "the same for all"


@pytest.fixture(scope="module")
def client(field_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = shutil.copytree(field_collection, tmp_path_factory.mktemp("service") / "fields")
    with TestClient(create_app(Path(folder))) as client:
        yield client


def predict(client: TestClient, inputs: list[dict[str, Any]]) -> list[list[str]]:
    answer = client.post("/v1/predict", json={"inputs": inputs, "top_k": 3})
    assert answer.status_code == 200, answer.text
    return [[label["id"] for label in found["labels"]] for found in answer.json()["predictions"]]


@pytest.mark.parametrize("times", [1, 3])
def test_fields_decide_and_their_inputs_keep_their_places(client: TestClient, times: int) -> None:
    said = [{"type": kind, "lang": lang} for kind in KINDS for lang in ("en", ["fr"])] * times
    snapshot: Snapshot = client.app.state.live.collection.snapshot  # type: ignore[attr-defined]
    mixed: list[dict[str, Any]] = [{"text": TEXT, "fields": fields} for fields in said]
    mixed[1:1] = [{"text": TEXT}, {"text": TEXT, "fields": None}, {"text": TEXT, "fields": {}}]
    found = predict(client, mixed)
    wanted = snapshot.predict([TEXT] * len(mixed), 3, [one.get("fields") for one in mixed]).rows
    assert found == [[snapshot.labels[int(row)].id for row in rows] for rows in wanted]
    best = [labels[0] for labels in found[:1] + found[4:]]
    assert best == [f"{kind}-{lang}" for kind in range(len(KINDS)) for lang in ("en", "fr")] * times
    assert found[1] == found[2] == found[3]
    info = client.get("/v1/info").json()
    assert info["fields"] == [{"name": name, "kind": "multivalent", "tower": "both"} for name in ("lang", "type")]


@pytest.mark.parametrize("text", [{}, {"text": None}, {"text": ""}, {"text": " \t"}])
def test_fields_are_enough_without_a_text(client: TestClient, text: dict[str, Any]) -> None:
    snapshot: Snapshot = client.app.state.live.collection.snapshot  # type: ignore[attr-defined]
    said: list[dict[str, Any]] = [{"type": kind, "lang": "fr"} for kind in KINDS]
    found = predict(client, [{**text, "fields": fields} for fields in said])
    wanted = snapshot.predict([""] * len(said), 3, said).rows
    assert found == [[snapshot.labels[int(row)].id for row in rows] for rows in wanted]
    assert [labels[0] for labels in found] == [f"{kind}-fr" for kind in range(len(KINDS))]


@pytest.mark.parametrize("fields", [{}, {"fields": None}, {"fields": {}}, {"fields": {"type": None, "lang": []}}])
@pytest.mark.parametrize("text", [{}, {"text": None}, {"text": ""}, {"text": "\u00a0"}])
def test_without_a_text_and_fields_both_are_named(
    client: TestClient, refused: Refused, text: dict[str, Any], fields: dict[str, Any]
) -> None:
    response = client.post("/v1/predict", json={"inputs": [{"text": TEXT}, {**text, **fields}]})
    problem = refused(response, 422, "invalid")
    (fault,) = problem["errors"]
    assert fault["pointer"] == "#/inputs/1/text"
    assert fault["detail"] == "must not be blank where no field says anything; give text or fields"


def test_many_values_go_to_the_thread_and_are_the_same(client: TestClient) -> None:
    few, many = {"type": "film"}, {"type": ["film", *["film"] * 999], "lang": ["fr"] * 1000}
    found = predict(client, [{"text": TEXT, "fields": {**few, "lang": "fr"}}])
    assert predict(client, [{"text": TEXT, "fields": many}]) == found
    assert predict(client, [{"text": TEXT, "fields": many}] * 3) == found * 3


def test_a_value_that_no_record_had_is_no_error(client: TestClient) -> None:
    assert len(predict(client, [{"text": TEXT, "fields": {"type": ["new", 3, 0.5, True], "lang": None}}])[0]) == 3


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"type": "book", "colour/~": "red"}, "field 'colour/~' is not read by this model (it reads lang, type)"),
        (
            {"type": {"a": 1}},
            "field 'type' must be a string, a number, true or false, or a list of these; is an object",
        ),
        ({"lang": [["en"]]}, "field 'lang' must be a string"),
        ({"lang": ["x"] * 1001}, "field 'lang' has 1001 values; at most 1000 are taken"),
    ],
)
def test_fields_are_refused_by_name(client: TestClient, refused: Refused, fields: object, fault: str) -> None:
    inputs = [{"text": TEXT}, {"text": TEXT, "fields": fields}]
    problem = refused(client.post("/v1/predict", json={"inputs": inputs}), 422, "invalid")
    (found,) = problem["errors"]
    assert found["pointer"] == "#/inputs/1/fields"
    assert found["detail"].startswith(fault)
    assert problem["detail"] == f"#/inputs/1/fields: {found['detail']}"


@pytest.mark.parametrize("fields", ["book", ["type"], 3])
def test_fields_must_be_an_object(client: TestClient, refused: Refused, fields: object) -> None:
    body = {"inputs": [{"text": TEXT, "fields": fields}]}
    problem = refused(client.post("/v1/predict", json=body), 422, "invalid")
    assert problem["errors"][0]["pointer"] == "#/inputs/0/fields"


def test_a_lone_surrogate_is_refused(client: TestClient, refused: Refused) -> None:
    body = b'{"inputs": [{"text": "x", "fields": {"type": "\\ud800"}}]}'
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert "not valid Unicode" in refused(answer, 422, "invalid")["detail"]
    body = b'{"inputs": [{"text": "x", "fields": {"\\ud800": 1}}]}'
    answer = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert "is not read by this model" in refused(answer, 422, "invalid")["detail"]


def test_a_bad_request_does_not_spoil_those_beside_it(client: TestClient) -> None:
    def ask(number: int) -> int:
        fields = {"colour": "red"} if number % 4 == 0 else {"type": KINDS[number % 4]}
        return client.post("/v1/predict", json={"inputs": [{"text": TEXT, "fields": fields}]}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(40))) == [422 if number % 4 == 0 else 200 for number in range(40)]


def test_a_model_without_fields_refuses_all_of_them(reader: TestClient, refused: Refused) -> None:
    problem = refused(
        reader.post("/v1/predict", json={"inputs": [{"text": "x", "fields": {"type": "book"}}]}), 422, "invalid"
    )
    assert "field 'type' is not read by this model (it reads none); leave it out" in problem["detail"]
    assert reader.post("/v1/predict", json={"inputs": [{"text": "x", "fields": {}}]}).status_code == 200


def test_the_openapi_document_says_what_fields_may_be(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    (said,) = (one for one in schemas["PredictInput"]["properties"]["fields"]["anyOf"] if one["type"] == "object")
    kinds = [value["type"] for value in said["additionalProperties"]["anyOf"]]
    assert kinds == ["string", "number", "boolean", "null", "array"]
