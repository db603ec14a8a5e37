from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index import Collection
from index.snapshot import Snapshot
from service import Settings, create_app

Refused = Callable[..., dict[str, Any]]
TEXTS = ("notes on bicycle repair", "größe übung und 日本 料理", "🚲🥧", "apple pie\0bread oven", "x" * 20_000)


@pytest.fixture(scope="module")
def snapshot(reader: TestClient) -> Snapshot:
    found: Snapshot = reader.app.state.live.collection.snapshot  # type: ignore[attr-defined]
    return found


def ask(client: TestClient, *texts: str, **more: Any) -> list[list[dict[str, Any]]]:
    answer = client.post("/v1/predict", json={"inputs": [{"text": text} for text in texts], **more})
    assert answer.status_code == 200, answer.text
    return [prediction["labels"] for prediction in answer.json()["predictions"]]


def check_equal(snapshot: Snapshot, texts: tuple[str, ...], answers: list[list[dict[str, Any]]], k: int) -> None:
    """Against the snapshot itself, asked without the service and one text at a time."""
    assert len(answers) == len(texts)
    for text, labels in zip(texts, answers, strict=True):
        expected = snapshot.predict([text], k)
        rows = [int(row) for row in expected.rows[0] if row >= 0]
        assert [label["id"] for label in labels] == [snapshot.labels[row].id for row in rows]
        assert [label["text"] for label in labels] == [snapshot.labels[row].text for row in rows]
        assert [label["score"] for label in labels] == pytest.approx(expected.scores[0][: len(rows)].tolist(), abs=2e-6)
        chances = snapshot.probabilities(expected)[0][: len(rows)].tolist()
        assert [label["probability"] for label in labels] == pytest.approx(chances, abs=2e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_one_text_gets_what_the_snapshot_predicts(reader: TestClient, snapshot: Snapshot, text: str) -> None:
    check_equal(snapshot, (text,), ask(reader, text), 10)


@pytest.mark.parametrize("count", [1, 5, 8, 9, 60])
def test_many_texts_get_what_the_snapshot_predicts(reader: TestClient, snapshot: Snapshot, count: int) -> None:
    texts = tuple(f"{TEXTS[place % len(TEXTS)]} {place}" for place in range(count))
    check_equal(snapshot, texts, ask(reader, *texts, top_k=3), 3)


@pytest.mark.parametrize("k", [1, 7, 39, 40, 1000])
def test_there_are_as_many_labels_as_asked_for_or_as_there_are(reader: TestClient, snapshot: Snapshot, k: int) -> None:
    (labels,) = ask(reader, TEXTS[0], top_k=k)
    assert len(labels) == min(k, len(snapshot.labels))
    check_equal(snapshot, TEXTS[:1], [labels], k)


def test_the_right_label_is_first(reader: TestClient) -> None:
    (labels,) = ask(reader, "questions about coral reef")
    assert (labels[0]["id"], labels[0]["text"]) == ("s13", "coral reef")


def test_the_threshold_keeps_exactly_the_probable_ones(reader: TestClient) -> None:
    texts = ("apple pie and bread oven", "something else")
    everything = ask(reader, *texts, top_k=40)
    for threshold in (0, 0.05, everything[0][1]["probability"], 0.5, 1):
        expected = [[label for label in labels if label["probability"] >= threshold] for labels in everything]
        assert ask(reader, *texts, top_k=40, threshold=threshold) == expected
    assert ask(reader, *texts, top_k=40, threshold=None) == everything


def test_ids_come_back_and_the_state_is_named(reader: TestClient, snapshot: Snapshot) -> None:
    inputs = [
        {"id": "größe/1", "text": "piano"},
        {"text": "violin"},
        {"id": None, "text": "chess"},
        {"id": "", "text": "x"},
    ]
    answer = reader.post("/v1/predict", json={"inputs": inputs}).json()
    assert [prediction.get("id", "none") for prediction in answer["predictions"]] == ["größe/1", "none", "none", ""]
    manifest = snapshot.bundle.manifest
    assert (answer["bundle"], answer["model"], answer["change"]) == (manifest.bundle, manifest.model, snapshot.change)


def test_a_nul_is_a_space(reader: TestClient) -> None:
    assert ask(reader, "apple\0pie") == ask(reader, "apple pie")
    assert len(ask(reader, "\0")[0]) == 10


def test_the_same_text_gets_the_same_answer_every_time(reader: TestClient) -> None:
    assert ask(reader, "steam engine") == ask(reader, "steam engine") == ask(reader, "steam engine", "steam engine")[1:]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{'inputs': []}", b'{"inputs": [{"text": "a"}]} x', b"\xef\xbb\xbf{}",
     b'{"inputs": [{"text": "\xff"}]}',
     '{"inputs": [{"text": "a"}]}'.encode("utf-16"), b'{"inputs": [{"text": "a"}], "threshold": NaN}',
     b'{"inputs": [{"text": "a"}], "threshold": -Infinity}', b'{"inputs": ' + b"[" * 100_000,
     b'{"inputs": [{"text": "a"}], "top_k": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_json_is_malformed(reader: TestClient, refused: Refused, body: bytes) -> None:
    response = reader.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    refused(response, 400, "malformed")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("null", "#"),
        ("[]", "#"),
        ("{}", "#/inputs"),
        ('{"inputs": []}', "#/inputs"),
        ('{"inputs": {"text": "a"}}', "#/inputs"),
        ('{"inputs": ["a"]}', "#/inputs/0"),
        ('{"inputs": [{"text": "a"}, {}]}', "#/inputs/1/text"),
        ('{"inputs": [{"text": ""}]}', "#/inputs/0/text"),
        ('{"inputs": [{"text": " \\n\\u00a0"}]}', "#/inputs/0/text"),
        ('{"inputs": [{"text": 1}]}', "#/inputs/0/text"),
        ('{"inputs": [{"text": null}]}', "#/inputs/0/text"),
        ('{"inputs": [{"text": "\\ud800"}]}', "#/inputs/0/text"),
        ('{"inputs": [{"text": "a", "id": 1}]}', "#/inputs/0/id"),
        ('{"inputs": [{"text": "a", "id": "\\udfff"}]}', "#/inputs/0/id"),
        ('{"inputs": [{"text": "a", "txet": 1}]}', "#/inputs/0"),
        ('{"inputs": [{"text": "a"}], "topk": 1}', "#"),
        ('{"inputs": [{"text": "a"}], "\\ud800": 1}', "#"),
        ('{"inputs": [{"text": "a"}], "top_k": 0}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "top_k": 1001}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "top_k": "3"}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "top_k": 3.0}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "top_k": true}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "top_k": null}', "#/top_k"),
        ('{"inputs": [{"text": "a"}], "threshold": -0.1}', "#/threshold"),
        ('{"inputs": [{"text": "a"}], "threshold": 1.1}', "#/threshold"),
        ('{"inputs": [{"text": "a"}], "threshold": 1e999}', "#/threshold"),
        ('{"inputs": [{"text": "a"}], "threshold": "0.5"}', "#/threshold"),
    ],
)
def test_a_fault_of_the_schema_is_pointed_at(reader: TestClient, refused: Refused, body: str, pointer: str) -> None:
    response = reader.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    problem = refused(response, 422, "invalid")
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["errors"][0]["detail"]


def test_faults_of_different_places_are_all_told(reader: TestClient, refused: Refused) -> None:
    problem = refused(reader.post("/v1/predict", json={"inputs": [1], "top_k": 0, "threshold": 2}), 422, "invalid")
    assert {fault["pointer"] for fault in problem["errors"]} == {"#/inputs/0", "#/top_k", "#/threshold"}


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
def test_another_media_type_is_not_taken(reader: TestClient, refused: Refused, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = reader.post("/v1/predict", content=b'{"inputs": [{"text": "a"}]}', headers=headers)
    refused(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON;charset=UTF-8", 'application/json; charset="utf-8"']
)
def test_json_in_utf_8_is_taken_however_it_is_written(reader: TestClient, kind: str) -> None:
    response = reader.post("/v1/predict", content=b'{"inputs": [{"text": "a"}]}', headers={"content-type": kind})
    assert response.status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_too_many_bytes_are_too_large(reader: TestClient, refused: Refused, declared: bool) -> None:
    body = json.dumps({"inputs": [{"text": "a" * 10_000_000}]}).encode()
    pieces = iter([body[:9_000_000], body[9_000_000:]])
    response = reader.post(
        "/v1/predict", content=body if declared else pieces, headers={"content-type": "application/json"}
    )
    problem = refused(response, 413, "too-large")
    assert problem["limit"] == Settings().max_body_bytes
    assert problem["actual"] > problem["limit"]


def test_too_many_inputs_are_too_large_whatever_is_in_them(reader: TestClient, refused: Refused) -> None:
    assert len(ask(reader, *["a"] * 1000, top_k=1)) == 1000
    problem = refused(reader.post("/v1/predict", json={"inputs": [1] * 1001}), 413, "too-large")
    assert (problem["limit"], problem["actual"]) == (1000, 1001)


def test_too_long_a_text_is_too_large(reader: TestClient, refused: Refused) -> None:
    ask(reader, "ä" * 100_000)
    response = reader.post("/v1/predict", json={"inputs": [{"text": "a"}, {"text": "ä" * 100_001}]})
    problem = refused(response, 413, "too-large")
    assert (problem["limit"], problem["actual"]) == (100_000, 100_001)
    assert "input 1" in problem["detail"]


def test_limits_are_those_of_the_settings(collection: Path, refused: Refused) -> None:
    settings = Settings(max_body_bytes=200, max_inputs=2, max_text_characters=50)
    with Collection(collection) as opened, TestClient(create_app(opened, settings)) as client:
        ask(client, "a", "b" * 50)
        for inputs, limit in (([{"text": "a"}] * 3, 2), ([{"text": "a" * 51}], 50), ([{"text": "a" * 300}], 200)):
            problem = refused(client.post("/v1/predict", json={"inputs": inputs}), 413, "too-large")
            assert problem["limit"] == limit
