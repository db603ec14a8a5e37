from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import Settings, create_app

Refused = Callable[..., dict[str, Any]]


def test_info_tells_what_is_served_and_every_limit(reader: TestClient) -> None:
    info = reader.get("/v1/info").json()
    snapshot = reader.app.state.live.collection.snapshot  # type: ignore[attr-defined]
    manifest = snapshot.bundle.manifest
    assert (info["bundle"], info["model"], info["dim"]) == (manifest.bundle, manifest.model, 32)
    assert (info["labels"], info["change"], info["fields"]) == (40, 0, [])
    settings = Settings()
    assert info["limits"] == {
        "body_bytes": settings.max_body_bytes,
        "inputs": settings.max_inputs,
        "text_characters": settings.max_text_characters,
        "text_characters_read": manifest.features.characters,
        "field_values": 1000,
        "history_values": None,
        "top_k": 1000,
        "examples": settings.max_examples,
        "label_id_bytes": 512,
        "page": 1000,
    }
    assert re.match(r"\d+\.\d+", info["versions"]["labelspace"])


def test_info_counts_the_values_that_training_never_met(reader: TestClient) -> None:
    queries = reader.app.state.live.collection.snapshot.bundle.queries  # type: ignore[attr-defined]
    before = reader.get("/v1/info").json()["unseen_values"]
    for text in ("apple", "qqqq zzzz", "apple apple"):
        assert reader.post("/v1/predict", json={"inputs": [{"text": text}]}).status_code == 200
    after = reader.get("/v1/info").json()["unseen_values"]
    bags = queries.featurizer(["apple", "qqqq zzzz", "apple apple"])
    assert after["looked_up"] - before["looked_up"] == len(bags.rows)
    assert after["unseen"] - before["unseen"] == bags.unseen.sum() > 0


def test_info_counts_what_is_there_now(writer: TestClient) -> None:
    writer.put("/v1/labels/a", json={"text": "a"})
    writer.put("/v1/labels/b", json={"text": "b"})
    writer.delete("/v1/labels/s1")
    writer.delete("/v1/labels/a")
    info = writer.get("/v1/info").json()
    assert (info["labels"], info["change"]) == (40, 4)


def test_it_lives_and_is_ready(reader: TestClient) -> None:
    assert reader.get("/livez").json() == {"status": "alive"}
    assert reader.get("/readyz").json() == {"status": "ready"}


def test_before_the_collection_is_open_it_lives_but_is_not_ready(tiny_collection: Path, refused: Refused) -> None:
    client = TestClient(create_app(tiny_collection))
    assert client.get("/livez").status_code == 200
    answers = [client.get(path) for path in ("/readyz", "/v1/info", "/v1/labels", "/v1/labels/s1")]
    answers += [client.post("/v1/predict", json={"inputs": [{"text": "a"}]}), client.delete("/v1/labels/s1")]
    answers += [client.put("/v1/labels/s1", json={"text": "a"})]
    for answer in answers:
        refused(answer, 503, "not-ready")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/predict/", "/v1/größe", "/page/../etc/passwd", "/v1//info"])
def test_an_unknown_address_is_not_found(reader: TestClient, refused: Refused, path: str) -> None:
    refused(reader.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/predict", {"POST", "OPTIONS"}),
        ("DELETE", "/v1/predict", {"POST", "OPTIONS"}),
        ("POST", "/v1/labels", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/v1/labels/a/b", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("PATCH", "/", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/livez", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_is_not_taken(
    reader: TestClient, refused: Refused, method: str, path: str, allowed: set[str]
) -> None:
    response = reader.request(method, path)
    refused(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == allowed
    asked = reader.options(path)
    assert (asked.status_code, asked.content) == (204, b"")
    assert set(asked.headers["allow"].split(", ")) == allowed


def test_head_is_get_without_the_body(reader: TestClient, refused: Refused) -> None:
    for path in ("/livez", "/v1/info", "/v1/labels/s1", "/"):
        head, get = reader.head(path), reader.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))
    assert reader.head("/v1/predict").status_code == 405
    assert reader.head("/nothing").status_code == 404


def test_a_sane_request_id_comes_back_and_others_are_replaced(reader: TestClient) -> None:
    assert (
        reader.get("/livez", headers={"x-request-id": "run-7/ä".replace("ä", "a")}).headers["x-request-id"] == "run-7/a"
    )
    for given in ("", "a b", "x" * 129, "<script>", "a\tb"):
        made = reader.get("/livez", headers={"x-request-id": given}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert len({reader.get("/livez").headers["x-request-id"] for _ in range(5)}) == 5


def test_what_nobody_foresaw_is_logged_and_not_shown(
    reader: TestClient, refused: Refused, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(served: object) -> None:
        raise RuntimeError("the secret reason")

    monkeypatch.setattr("service.routes.status._limits", fail)
    response = reader.get("/v1/info", headers={"x-request-id": "id-7"})
    refused(response, 500, "internal")
    assert "secret" not in response.text
    (record,) = caplog.records
    assert "id-7" in record.getMessage()
    assert "the secret reason" in caplog.text
    monkeypatch.undo()
    assert reader.get("/v1/info").status_code == 200


def test_the_openapi_document_is_whole(reader: TestClient) -> None:
    document = reader.get("/openapi.json").json()
    methods = {path: set(operations) for path, operations in document["paths"].items()}
    assert methods == {
        "/v1/predict": {"post"},
        "/v1/feedback": {"post"},
        "/v1/examples/remove": {"post"},
        "/v1/labels": {"get"},
        "/v1/labels/{id}": {"get", "put", "delete"},
        "/v1/info": {"get"},
        "/livez": {"get"},
        "/readyz": {"get"},
    }
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references == set(schemas)
    predict = document["paths"]["/v1/predict"]["post"]
    assert predict["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictRequest")
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/PredictAnswer")
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert (list(answer["content"]) == ["application/problem+json"]) == (status >= "400")
    assert reader.get("/docs").status_code == 200


def test_what_is_answered_has_the_keys_that_are_documented(writer: TestClient) -> None:
    schemas = writer.get("/openapi.json").json()["components"]["schemas"]
    answers = {
        "PredictAnswer": writer.post("/v1/predict", json={"inputs": [{"text": "a"}]}).json(),
        "LabelStored": writer.put("/v1/labels/a", json={"text": "a"}).json(),
        "LabelShown": writer.get("/v1/labels/a").json(),
        "LabelPage": writer.get("/v1/labels").json(),
        "LabelAnswer": writer.get("/v1/labels").json()["labels"][0],
        "LabelRemoved": writer.delete("/v1/labels/a").json(),
        "Info": writer.get("/v1/info").json(),
        "Health": writer.get("/livez").json(),
    }
    for name, answer in answers.items():
        assert set(answer) == set(schemas[name]["properties"]), name


def test_the_service_needs_no_torch() -> None:
    check = "import sys, service, service.serving; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_door_is_narrow() -> None:
    import service

    assert service.__all__ == ["Settings", "create_app"]
