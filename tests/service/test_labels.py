from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from index import Collection, LabelspaceError
from index.changes import PutLabel, RemoveLabel
from service import Settings, create_app

Refused = Callable[..., dict[str, Any]]
IDS = (
    "new",
    "a/b//c/",
    "with space",
    "日本/ラベル",
    "größe",
    "🚲",
    "100%",
    "a?b#c",
    "a+b&c=d",
    "..x",
    "x" * 512,
)


def at(label: str) -> str:
    return f"/v1/labels/{quote(label, safe='')}"


def best(client: TestClient, text: str) -> str:
    answer = client.post("/v1/predict", json={"inputs": [{"text": text}], "top_k": 1}).json()
    return str(answer["predictions"][0]["labels"][0]["id"])


def walk(client: TestClient, **query: Any) -> list[str]:
    found, cursor = [], None
    while True:
        page = client.get("/v1/labels", params=query | ({"cursor": cursor} if cursor else {})).json()
        found += [label["id"] for label in page["labels"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("label", IDS)
def test_a_label_is_added_shown_replaced_and_removed(writer: TestClient, refused: Refused, label: str) -> None:
    added = writer.put(at(label), json={"text": "quantum flute", "examples": ["how a quantum flute sounds"]})
    assert added.status_code == 201
    assert added.json() == {
        "id": label,
        "text": "quantum flute",
        "fields": None,
        "examples": ["how a quantum flute sounds"],
        "change": 1,
    }
    assert writer.get(at(label)).json() == {"id": label, "text": "quantum flute", "fields": None}
    assert best(writer, "a quantum flute") == label
    replaced = writer.put(at(label), json={"text": "marble statue"})
    assert (replaced.status_code, replaced.json()["examples"], replaced.json()["change"]) == (200, [], 2)
    assert writer.get(at(label)).json()["text"] == "marble statue"
    assert walk(writer).count(label) == 1
    removed = writer.delete(at(label))
    assert (removed.status_code, removed.json()) == (200, {"id": label, "change": 3})
    refused(writer.get(at(label)), 404, "unknown-label")
    refused(writer.delete(at(label)), 404, "unknown-label")
    assert label not in walk(writer)


def test_a_label_outlives_a_restart_and_is_gone_when_removed(collection: Path) -> None:
    with TestClient(create_app(collection)) as client:
        assert best(client, "a quantum flute") != "flute"
        assert client.put("/v1/labels/flute", json={"text": "quantum flute"}).status_code == 201
    with TestClient(create_app(collection)) as client:
        assert best(client, "a quantum flute") == "flute"
        assert client.get("/v1/info").json()["change"] == 1
        assert client.delete("/v1/labels/flute").status_code == 200
        assert best(client, "a quantum flute") != "flute"
    with TestClient(create_app(collection)) as client:
        assert best(client, "a quantum flute") != "flute"
        assert client.get("/v1/labels/flute").status_code == 404


def test_an_answered_change_is_in_the_log(writer: TestClient, collection: Path) -> None:
    change = writer.put("/v1/labels/flute", json={"examples": ["a", "b"]}).json()["change"]
    with Collection(collection) as other:
        assert other.snapshot.change == change
        assert other.snapshot.labels.find("flute") is not None


def test_wait_false_answers_202(writer: TestClient) -> None:
    for wait in ("false", "0"):
        answer = writer.put(f"/v1/labels/flute?wait={wait}", json={"text": "quantum flute"})
        assert (answer.status_code, answer.json()["id"]) == (202, "flute")
    assert best(writer, "a quantum flute") == "flute"


def test_a_bundle_label_is_edited_and_removed(writer: TestClient) -> None:
    assert writer.put("/v1/labels/s3", json={"text": "quantum flute"}).status_code == 200
    assert writer.get("/v1/labels/s3").json() == {"id": "s3", "text": "quantum flute", "fields": None}
    assert writer.delete("/v1/labels/s5").json()["change"] == 2
    answer = writer.post("/v1/predict", json={"inputs": [{"text": "violin string"}], "top_k": 1000}).json()
    assert "s5" not in [label["id"] for label in answer["predictions"][0]["labels"]]
    assert answer["change"] == 2


def test_a_label_may_have_a_vector(writer: TestClient, collection: Path) -> None:
    snapshot = writer.app.state.live.collection.snapshot  # type: ignore[attr-defined]
    vector = (7 * snapshot.bundle.queries.texts(["glacier ice today"])[0]).tolist()
    assert writer.put("/v1/labels/v", json={"vector": vector}).status_code == 201
    assert best(writer, "glacier ice today") == "v"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, None),
        ({"text": " "}, None),
        ({"text": None, "examples": None, "vector": None, "fields": None}, None),
        ({"fields": {}}, None),
        ({"fields": []}, "#/fields"),
        ({"text": "a", "fields": {"type": {"is": "book"}}}, "#/fields"),
        ({"vector": [1.0]}, None),
        ({"vector": [0] * 32}, None),
        ({"examples": []}, None),
        ({"examples": ["a", " "]}, "#/examples/1"),
        ({"examples": "a"}, "#/examples"),
        ({"text": "a", "vector": ["1"]}, "#/vector/0"),
        ({"text": 1}, "#/text"),
        ({"text": "\ud800"}, "#/text"),
        ({"text": "a", "id": "b"}, "#"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(
    reader: TestClient, refused: Refused, body: dict[str, Any], pointer: str | None
) -> None:
    response = reader.put("/v1/labels/new", content=json.dumps(body), headers={"content-type": "application/json"})
    problem = refused(response, 422, "invalid")
    assert pointer is None or problem["errors"][0]["pointer"] == pointer
    refused(reader.get("/v1/labels/new"), 404, "unknown-label")


@pytest.mark.parametrize("label", ["%20", "%00", "a%09b", "%7F", "x" * 513, ""])
def test_an_id_that_cannot_be_one_is_refused(reader: TestClient, refused: Refused, label: str) -> None:
    refused(reader.put(f"/v1/labels/{label}", json={"text": "a"}), 422, "invalid")
    refused(reader.get(f"/v1/labels/{label}"), 404, "unknown-label")


def test_an_id_that_is_not_utf_8_is_malformed(reader: TestClient, refused: Refused) -> None:
    for answer in (reader.put("/v1/labels/a%FF", json={"text": "a"}), reader.get("/v1/labels/a%FF")):
        refused(answer, 400, "malformed")


def test_too_much_of_a_label_is_too_large(reader: TestClient, refused: Refused) -> None:
    for body, limit in (
        ({"examples": ["a"] * 1001}, 1000),
        ({"text": "a" * 100_001}, 100_000),
        ({"examples": ["a", "b" * 100_001]}, 100_000),
        ({"vector": [1] * 70_000}, 65_536),
    ):
        problem = refused(reader.put("/v1/labels/new", json=body), 413, "too-large")
        assert problem["limit"] == limit < problem["actual"]
    refused(reader.put("/v1/labels/new", content=b"{"), 415, "unsupported-media-type")
    refused(reader.put("/v1/labels/new", content=b"{", headers={"content-type": "application/json"}), 400, "malformed")


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
def test_cursors_walk_every_label_once_in_row_order(reader: TestClient, limit: int) -> None:
    assert walk(reader, limit=limit) == [f"s{place}" for place in range(40)]


def test_a_walk_goes_on_while_labels_come_and_go(writer: TestClient) -> None:
    first = writer.get("/v1/labels", params={"limit": 10}).json()
    writer.delete("/v1/labels/s9")
    writer.put("/v1/labels/s9", json={"text": "back again"})
    writer.delete("/v1/labels/s12")
    writer.put("/v1/labels/zz", json={"text": "late"})
    rest = [label["id"] for label in first["labels"]]
    cursor: str | None = first["next_cursor"]
    while cursor:
        page = writer.get("/v1/labels", params={"limit": 10, "cursor": cursor}).json()
        rest += [label["id"] for label in page["labels"]]
        cursor = page["next_cursor"]
    assert rest == [*(f"s{place}" for place in range(40) if place != 12), "s9", "zz"]


def test_a_search_finds_in_id_and_text_in_any_case(reader: TestClient) -> None:
    assert walk(reader, q="GRÖSSE") == ["s38"]
    assert walk(reader, q="S39") == ["s39"]
    assert walk(reader, q="料理") == ["s39"]
    assert walk(reader, q="o", limit=3) == [label for label in walk(reader) if label in set(walk(reader, q="o"))]
    assert walk(reader, q="no such thing") == []


def test_a_search_looks_at_a_bounded_number_of_rows(reader: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.routes.labels._SCANNED_ROWS", 15)
    page = reader.get("/v1/labels", params={"q": "料理"}).json()
    assert page["labels"] == []
    assert page["next_cursor"] is not None
    assert walk(reader, q="料理") == ["s39"]


def test_a_cursor_from_elsewhere_is_malformed(reader: TestClient, refused: Refused) -> None:
    def encode(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()

    bundle = reader.get("/v1/info").json()["bundle"]
    bad = ("x", "***", "日本", "bnVsbA", encode(3), encode([bundle]), encode([bundle, -1]), encode([bundle, "1"]),
           encode([bundle, True]), encode(["other", 3]), encode("[" * 5000))  # fmt: skip
    for cursor in bad:
        refused(reader.get("/v1/labels", params={"cursor": cursor}), 400, "malformed")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit="])
def test_a_limit_out_of_range_is_refused(reader: TestClient, refused: Refused, query: str) -> None:
    problem = refused(reader.get(f"/v1/labels?{query}"), 422, "invalid")
    assert problem["errors"][0]["parameter"] == "limit"


def test_another_process_is_followed_within_a_second(writer: TestClient, collection: Path) -> None:
    put = (
        "import sys; from pathlib import Path; from index import Collection; from index.changes import PutLabel\n"
        "with Collection(Path(sys.argv[1])) as c: c.write([PutLabel('flute', 'quantum flute')])"
    )
    subprocess.run([sys.executable, "-c", put, str(collection)], check=True)
    stop = time.monotonic() + 1
    while best(writer, "a quantum flute") != "flute":
        assert time.monotonic() < stop
        time.sleep(0.02)
    with Collection(collection) as other:
        other.write([PutLabel("drum", "drum"), RemoveLabel("flute")])
    # A write sees what others have written at once.
    assert writer.put("/v1/labels/drum", json={"text": "drum kit"}).status_code == 200
    assert best(writer, "a quantum flute") != "flute"


def test_following_survives_errors(
    collection: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(collection, Settings(follow_seconds=0.02))
    with TestClient(app) as client:
        opened: Collection = app.state.live.collection
        with monkeypatch.context() as broken:
            broken.setattr(opened, "refresh", lambda: 1 / 0)
            time.sleep(0.2)
        with Collection(collection) as other:
            other.write([PutLabel("flute", "quantum flute")])
        stop = time.monotonic() + 1
        while opened.snapshot.change == 0 and time.monotonic() < stop:
            time.sleep(0.02)
        assert best(client, "a quantum flute") == "flute"
    assert len([record for record in caplog.records if "division by zero" in str(record.exc_info)]) == 1


def test_a_change_that_cannot_be_stored_is_told_without_paths(
    writer: TestClient, refused: Refused, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Collection, changes: object) -> list[int]:
        raise LabelspaceError("/secret/changes.sqlite: the change was not stored (disk is full)")

    monkeypatch.setattr(Collection, "write", fail)
    for response in (writer.put("/v1/labels/a", json={"text": "a"}), writer.delete("/v1/labels/s1")):
        refused(response, 500, "not-stored")
        assert "secret" not in response.text
    assert "/secret/changes.sqlite" in caplog.text
