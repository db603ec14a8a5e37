"""Fields of every kind over HTTP: what each takes, reads the same, refuses, and what /v1/info says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import create_app
from tests_support import KINDS, TINY

Refused = Callable[..., dict[str, Any]]
FIELDS = (
    'features.fields={type={kind="categorical"}, year={kind="numeric", bins=8, tower="query"}, '
    'lang={kind="history", length=5}, title={kind="text"}}'
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    from training.config import load_config
    from training.dataset import load_dataset
    from training.export import export_run
    from training.run import start_run
    from training.trainer import Trainer

    folder = tmp_path_factory.mktemp("kinds")
    rows = [
        {"id": f"q{row}", "labels": [f"l{row % 4}"], "fields": {
            "type": KINDS[row % 4], "year": 1900 + row, "lang": [f"v{row % 4}", str(row)], "title": f"of {row % 4}"}}
        for row in range(120)
    ]  # fmt: skip
    labels = [{"id": f"l{kind}", "text": f"label {kind}"} for kind in range(4)]
    for name, lines in (("train", rows), ("test", rows[:8]), ("labels", labels)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = load_config(None, [*TINY, FIELDS])
    dataset = load_dataset(folder, config)
    start_run(folder / "run", folder, dataset, config)
    Trainer(dataset, config).train(folder / "run")
    export_run(folder / "run", folder / "collection", report=lambda line: None)
    with TestClient(create_app(folder / "collection")) as client:
        yield client


def post(client: TestClient, fields: str) -> Any:
    body = f'{{"inputs": [{{"fields": {fields}}}], "top_k": 4}}'
    return client.post("/v1/predict", content=body.encode(), headers={"content-type": "application/json"})


def scores(client: TestClient, fields: str) -> dict[str, float]:
    answer = post(client, fields)
    assert answer.status_code == 200, answer.text
    return {label["id"]: label["score"] for label in answer.json()["predictions"][0]["labels"]}


def test_info_tells_kinds_towers_and_limits(client: TestClient) -> None:
    info = client.get("/v1/info").json()
    assert info["fields"] == [
        {"name": "lang", "kind": "history", "tower": "both"},
        {"name": "title", "kind": "text", "tower": "both"},
        {"name": "type", "kind": "categorical", "tower": "both"},
        {"name": "year", "kind": "numeric", "tower": "query"},
    ]
    assert (info["limits"]["history_values"], info["limits"]["field_values"]) == (5, 1000)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ('{"year": 1950}', '{"year": "1950"}'),
        ('{"year": 1950}', '{"year": 1950.0}'),
        ('{"year": 1e999}', '{"year": 99999}'),
        ('{"year": -1e999}', '{"year": 0}'),
        ('{"year": ' + "9" * 4000 + "}", '{"year": 1e999}'),
        ('{"type": "book", "year": null}', '{"type": "book"}'),
        ('{"type": "book", "year": "nan"}', '{"type": "book"}'),
        (
            json.dumps({"lang": [str(value % 100) for value in range(100_000)]}),
            '{"lang": ["95", "96", "97", "98", "99"]}',
        ),
        ('{"lang": ["v1"]}', '{"lang": "v1"}'),
        ('{"title": "of 2", "lang": []}', '{"title": "OF  2"}'),
    ],
)
def test_what_reads_the_same(client: TestClient, one: str, same: str) -> None:
    assert scores(client, one) == pytest.approx(scores(client, same), abs=2e-6)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ('{"type": ["book", "film"]}', "'type'"),
        ('{"type": {"a": 1}}', "'type'"),
        ('{"year": "long ago"}', "'year'"),
        ('{"year": true}', "'year'"),
        ('{"year": [1950]}', "'year'"),
        ('{"title": ["of 2"]}', "'title'"),
        ('{"lang": [["v1"]]}', "'lang'"),
        ('{"lang": [null]}', "'lang'"),
    ],
)
def test_what_is_refused_by_name(client: TestClient, refused: Refused, fields: str, name: str) -> None:
    problem = refused(post(client, fields), 422, "invalid")
    assert problem["errors"][0]["pointer"] == "#/inputs/0/fields"
    assert f"field {name}" in problem["detail"]


def test_a_label_takes_the_fields_of_its_tower_and_others_to_filter_by(client: TestClient) -> None:
    fields = {"type": "new", "lang": ["v9"] * 10_001, "title": "größe", "year": 1950, "colour": ["red", "blue"]}
    assert client.put("/v1/labels/new", json={"fields": fields}).status_code == 201
    assert client.get("/v1/labels/new").json()["fields"] == fields
    assert client.delete("/v1/labels/new").status_code == 200


def test_half_a_surrogate_pair_in_a_text_field(client: TestClient, refused: Refused) -> None:
    assert scores(client, '{"title": "of \\ud800 2"}') == pytest.approx(scores(client, '{"title": "of 2"}'), abs=2e-6)
    answer = client.put(
        "/v1/labels/new", content=b'{"fields": {"title": "\\ud800"}}', headers={"content-type": "application/json"}
    )
    assert "not valid Unicode" in refused(answer, 422, "invalid")["detail"]
