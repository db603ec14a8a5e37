"""Feedback, examples that are removed, filters, and answers that know of a change: over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from index.changes import PutLabel
from index.collection import Collection
from service import Settings, create_app

Refused = Callable[..., dict[str, Any]]
TEXT = "xylophone in a velvet tunnel"


@pytest.fixture
def client(voting: Path) -> Iterator[TestClient]:
    with TestClient(create_app(voting)) as opened:
        yield opened


def scores(client: TestClient, text: str = TEXT, **more: Any) -> dict[str, float]:
    answer = client.post("/v1/predict", json={"inputs": [{"text": text}], "top_k": 60, **more})
    assert answer.status_code == 200, answer.text
    return {label["id"]: label["score"] for label in answer.json()["predictions"][0]["labels"]}


def test_feedback_raises_what_is_right_and_lowers_what_is_wrong_at_once(client: TestClient) -> None:
    before = scores(client)
    first, last = max(before, key=lambda label: before[label]), min(before, key=lambda label: before[label])
    told = client.post("/v1/feedback", json={"text": TEXT, "right": [last], "wrong": [first]})
    assert (told.status_code, told.json()) == (200, {"change": 1})
    after = scores(client)
    assert after[last] > before[last] + 0.1
    assert after[first] < before[first]


def test_an_example_that_is_removed_leaves_nothing_behind(client: TestClient) -> None:
    before = scores(client)
    client.post("/v1/feedback", json={"text": TEXT, "right": ["s3", "s4"], "wrong": ["s5"]})
    assert scores(client) != before
    assert client.post("/v1/examples/remove", json={"text": TEXT, "label": "s3"}).json() == {"change": 2}
    assert scores(client)["s3"] == pytest.approx(before["s3"], abs=0.05)
    assert scores(client) != before
    assert client.post("/v1/examples/remove", json={"text": TEXT}).json() == {"change": 3}
    assert scores(client) == before


@pytest.mark.parametrize(
    ("path", "body", "status", "name"),
    [
        ("feedback", {"text": " ", "right": ["s1"]}, 422, "invalid"),
        ("feedback", {"right": ["s1"]}, 422, "invalid"),
        ("feedback", {"text": TEXT}, 422, "invalid"),
        ("feedback", {"text": TEXT, "right": ["nobody"]}, 404, "unknown-label"),
        ("feedback", {"text": TEXT, "wrong": ["s1", "nobody"]}, 404, "unknown-label"),
        ("feedback", {"text": TEXT, "right": "s1"}, 422, "invalid"),
        ("feedback", {"text": TEXT, "right": ["s1"], "wrong": ["s1"]}, 422, "invalid"),
        ("feedback", {"text": TEXT, "right": ["s1"], "fields": {"colour": "red"}}, 422, "invalid"),
        ("feedback", {"text": TEXT, "right": [f"s{row}" for row in range(1001)]}, 413, "too-large"),
        ("feedback", {"text": "x" * 100_001, "right": ["s1"]}, 413, "too-large"),
        ("examples/remove", {"text": ""}, 422, "invalid"),
        ("examples/remove", {"text": TEXT, "label": "nobody"}, 404, "unknown-label"),
        ("examples/remove", {"text": TEXT, "labels": ["s1"]}, 422, "invalid"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    client: TestClient, refused: Refused, path: str, body: dict[str, Any], status: int, name: str
) -> None:
    refused(client.post(f"/v1/{path}", json=body), status, name)
    assert client.get("/v1/info").json()["change"] == 0


def test_a_filter_shows_the_labels_that_match_with_the_scores_they_have_without_it(client: TestClient) -> None:
    for row, fields in enumerate([{"lang": "de"}, {"lang": ["de", "fr"], "year": 1990}, {"lang": "fr", "year": 1990}]):
        assert client.put(f"/v1/labels/f{row}", json={"text": f"quantum flute {row}", "fields": fields}).is_success
    everything = scores(client, "apple pie")
    for asked, matching in (
        ({"lang": "de"}, {"f0", "f1"}),
        ({"lang": ["fr", "de"], "year": 1990}, {"f1", "f2"}),
        ({"lang": "de", "year": "1990"}, set()),
        ({"colour": "red"}, set()),
        ({}, set(everything)),
    ):
        found = scores(client, "apple pie", filter=asked)
        assert found == pytest.approx({label: everything[label] for label in matching}, abs=2e-6)
    assert list(scores(client, "apple pie", filter={"lang": "de"}, top_k=1)) == [
        max(("f0", "f1"), key=lambda label: everything[label])
    ]


@pytest.mark.parametrize("asked", [{"lang": None}, {"lang": {"is": "de"}}, {"lang": [["de"]]}, [], "de"])
def test_a_filter_that_is_none_is_refused(client: TestClient, refused: Refused, asked: Any) -> None:
    body = {"inputs": [{"text": TEXT}], "filter": asked}
    problem = refused(client.post("/v1/predict", json=body), 422, "invalid")
    assert problem["errors"][0]["pointer"].startswith("#/filter")


def test_texts_with_other_filters_that_come_together_each_get_their_own(client: TestClient) -> None:
    for row, lang in enumerate(("de", "fr", "it")):
        client.put(f"/v1/labels/f{row}", json={"text": "quantum flute", "fields": {"lang": lang}})
    found: dict[str, list[str]] = {}

    def ask(lang: str) -> None:
        found[lang] = list(scores(client, "quantum flute", filter={"lang": lang}))

    asking = [threading.Thread(target=ask, args=(lang,)) for lang in ("de", "fr", "it")]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert found == {"de": ["f0"], "fr": ["f1"], "it": ["f2"]}


def test_an_answer_waits_for_the_change_that_it_has_to_know_of(collection: Path, refused: Refused) -> None:
    settings = Settings(follow_seconds=30, change_seconds=5)
    with TestClient(create_app(collection, settings)) as client, Collection(collection) as other:
        threading.Timer(0.3, lambda: other.write([PutLabel("late", "zebra crossing")])).start()
        assert next(iter(scores(client, "zebra crossing", min_change=1))) == "late"
        began = time.monotonic()
        assert "late" in scores(client, "zebra crossing", min_change=1)
        assert time.monotonic() - began < 1
    with TestClient(create_app(collection, Settings(change_seconds=0.2))) as client:
        body = {"inputs": [{"text": TEXT}], "min_change": 2}
        behind = client.post("/v1/predict", json=body)
        refused(behind, 503, "behind")
        assert behind.headers["retry-after"] == "1"
        refused(client.post("/v1/predict", json={**body, "min_change": -1}), 422, "invalid")
