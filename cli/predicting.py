"""Lines in, predictions out, as a stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from index.errors import InputError
from index.fields import Fields
from index.label_filter import LabelFilter
from index.snapshot import Snapshot, says_something
from index.strict_json import parse_json

_BLOCK = 64
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class _Query:
    """One input line: its number, the id it gave, its text and fields; or why it cannot be predicted."""

    line: int
    id: str | None
    text: str
    fault: str | None = None
    fields: Fields | None = None


@contextmanager
def open_lines(file: str) -> Iterator[IO[bytes]]:
    """The file's bytes, or standard input for "-". Raises InputError when it cannot be opened."""
    if file == "-":
        yield sys.stdin.buffer
        return
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file}: there is no such file")
    with path.open("rb") as opened:
        yield opened


def predict_lines(
    snapshot: Snapshot,
    lines: IO[bytes],
    out: IO[str],
    *,
    top_k: int,
    threshold: float | None,
    only: LabelFilter | None = None,
) -> list[tuple[int, str]]:
    """Write one JSON line per input line, in order, as the input comes; returns (line number, fault) of the bad ones.

    A line that begins with { is JSON with "text" or "fields", or both, and maybe "id"; any other line is the text
    itself. A bad line is answered by {"line", "error"} and the rest goes on. only: labels that may be shown.
    """
    bad = []
    for numbered in _blocks(lines):
        block = [_read(number, line, snapshot) for number, line in numbered]
        good = [query for query in block if query.fault is None]
        answers = iter(_answer(snapshot, good, top_k, threshold, only) if good else [])
        for query in block:
            if query.fault is None:
                answer = next(answers)
            else:
                bad.append((query.line, query.fault))
                answer = {"line": query.line, "error": query.fault}
            out.write(json.dumps(answer, ensure_ascii=False) + "\n")
        out.flush()
    return bad


def _blocks(lines: IO[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines in blocks: what has arrived by now, so that a slow writer gets each answer at once."""
    number, rest = 0, b""
    while chunk := lines.read1(_CHUNK):  # type: ignore[attr-defined]  # every binary file object here has it
        *whole, rest = (rest + chunk).split(b"\n")
        for start in range(0, len(whole), _BLOCK):
            block = whole[start : start + _BLOCK]
            yield list(enumerate(block, start=number + 1))
            number += len(block)
    if rest:
        yield [(number + 1, rest)]


def _read(number: int, line: bytes, snapshot: Snapshot) -> _Query:
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return _Query(number, None, "", "is not UTF-8")
    if not text.lstrip().startswith("{"):
        return _Query(number, None, text, None if text.strip() else "is empty")
    try:
        return _query(number, parse_json(text), snapshot)
    except InputError as error:
        return _Query(number, None, "", str(error))
    except (ValueError, RecursionError):
        return _Query(number, None, "", "is not valid JSON")


def _query(number: int, record: dict[str, Any], snapshot: Snapshot) -> _Query:
    """Raises InputError saying what is wrong with the record."""
    text, name, fields = ("" if record.get("text") is None else record["text"]), record.get("id"), record.get("fields")
    if not isinstance(text, str):
        raise InputError('"text" must be a text')
    if name is not None and not isinstance(name, str):
        raise InputError('"id" must be a text')
    if fields is not None and not isinstance(fields, dict):
        raise InputError('"fields" must be an object')
    if not says_something(text, fields):
        raise InputError('has neither a "text" that is not blank nor "fields" that say anything; give one of them')
    snapshot.check_fields(fields)
    return _Query(number, name, text, fields=fields)


def _answer(
    snapshot: Snapshot, queries: list[_Query], top_k: int, threshold: float | None, only: LabelFilter | None
) -> list[dict[str, Any]]:
    texts, fields = [query.text for query in queries], [query.fields for query in queries]
    predictions = snapshot.predict(texts, top_k, fields, only)
    probabilities = snapshot.probabilities(predictions)
    answers: list[dict[str, Any]] = []
    for query, rows, scores, chances in zip(queries, predictions.rows, predictions.scores, probabilities, strict=True):
        labels = [
            {
                "id": label.id,
                "text": label.text,
                "score": round(float(score), 6),
                "probability": round(float(chance), 4),
            }
            for row, score, chance in zip(rows, scores, chances, strict=True)
            if row >= 0 and (threshold is None or chance >= threshold)
            for label in (snapshot.labels[int(row)],)
        ]
        answers.append({**({"id": query.id} if query.id is not None else {}), "labels": labels})
    return answers
