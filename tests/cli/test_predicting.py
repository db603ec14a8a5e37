"""`labelspace predict` with fields: what is read, and lines that are refused by the name of their field."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from cli.predicting import predict_lines
from index.collection import Collection
from tests_support import KINDS

TEXT = "the same for all"


def ask(collection: Path, lines: list[Any]) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    out = io.StringIO()
    with Collection(collection) as opened:
        bad = predict_lines(opened.snapshot, io.BufferedReader(io.BytesIO(text.encode())), out, top_k=1, threshold=None)
    return [json.loads(line) for line in out.getvalue().splitlines()], bad


def test_fields_decide_line_by_line(field_collection: Path) -> None:
    lines: list[Any] = [
        {"text": TEXT, "fields": {"type": kind, "lang": lang}} for kind in KINDS for lang in ("en", ["fr", "fr"])
    ]
    answers, bad = ask(field_collection, [*lines, TEXT, {"text": TEXT}, {"text": TEXT, "fields": None}])
    best = [answer["labels"][0]["id"] for answer in answers]
    assert best[:8] == [f"{kind}-{lang}" for kind in range(len(KINDS)) for lang in ("en", "fr")]
    assert best[8] == best[9] == best[10]
    assert not bad


def test_fields_are_enough_without_a_text(field_collection: Path) -> None:
    said = [{"type": kind, "lang": "fr"} for kind in KINDS]
    lines: list[Any] = [
        {**text, "fields": fields} for fields in said for text in ({}, {"text": None}, {"text": ""}, {"text": "\t"})
    ]
    answers, bad = ask(field_collection, lines)
    assert not bad
    assert [one["labels"][0]["id"] for one in answers] == [f"{kind}-fr" for kind in range(len(KINDS)) for _ in range(4)]


def test_a_bad_field_is_an_error_of_its_line(field_collection: Path) -> None:
    good = {"id": "q", "text": TEXT, "fields": {"type": "film", "lang": "fr"}}
    faulty = [
        {"text": TEXT, "fields": {"colour": "red"}},
        {"text": TEXT, "fields": "book"},
        {"text": TEXT, "fields": {"type": {"deep": 1}}},
        '{"text": "x", "fields": {"type": NaN}}',
        '{"text": "x", "fields": {"type": "a", "type": "b"}}',
        {"text": " ", "fields": {"type": [], "lang": None}},
        {"fields": {}},
        {"text": TEXT, "fields": []},
        {"text": ["x"], "fields": {"type": "a"}},
        '{"text": "x", "fields": {"type": "\\ud800"}}',
    ]
    answers, bad = ask(field_collection, [faulty[0], good, *faulty[1:], good])
    assert [answer["labels"][0]["id"] for answer in answers if "labels" in answer] == ["1-fr", "1-fr"]
    assert [line for line, _ in bad] == [1, *range(3, 12)]
    assert [answer["error"] for answer in answers if "error" in answer] == [fault for _, fault in bad]
    neither = 'has neither a "text" that is not blank nor "fields" that say anything; give one of them'
    starts = ("field 'colour' is not read by this model (it reads lang, type)", '"fields" must be an object',
              "field 'type' must be a string", "is not JSON: NaN is no JSON number", "has the key 'type' twice",
              neither, neither, '"fields" must be an object', '"text" must be a text',
              "field 'type' is not valid Unicode")  # fmt: skip
    assert all(fault.startswith(start) for (_, fault), start in zip(bad, starts, strict=True))


def test_a_model_without_fields_refuses_them(tiny_collection: Path) -> None:
    answers, bad = ask(tiny_collection, [{"text": "apple pie", "fields": {"type": "book"}}, "apple pie"])
    assert bad == [(1, "field 'type' is not read by this model (it reads none); leave it out")]
    assert answers[1]["labels"][0]["id"] == "s0"
