"""Held-out queries with their labels, which a bundle keeps so that its successors can be tuned and judged on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import InputError, json_kind
from index.fields import Fields
from index.files import write_text
from index.strict_json import parse_json

DEV_FILE = "dev.jsonl"
# So many are enough to tune on and to tell a point of P@1; more would only make a bundle bigger.
MOST_DEV = 1000


@dataclass(frozen=True, slots=True)
class DevQuery:
    """A query, and the ids of the labels that are right for it; `labels` is None where nobody said.

    exclude: ids that are neither right nor wrong.
    """

    text: str
    fields: Fields | None = None
    labels: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()


def read_dev(path: Path) -> list[DevQuery]:
    """The queries of a JSONL file: objects with "text" or "fields", or both, and maybe "labels" and "exclude".

    Raises InputError naming file and line for the first that is none, or when the file cannot be read or has none.
    """
    found = []
    for number, line in enumerate(_lines(path), 1):
        try:
            found.append(_query(parse_json(line.decode("utf-8"))))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: is not valid UTF-8; write the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: is not valid JSON; write one object a line") from error
    if not found:
        raise InputError(f"{path}: has no queries; write one a line")
    return found


def bundled_dev(folder: Path) -> list[DevQuery]:
    """Those that the bundle in `folder` keeps; none where it is from a version that kept none."""
    path = folder / DEV_FILE
    return read_dev(path) if path.is_file() and path.stat().st_size else []


def write_dev(folder: Path, queries: Iterable[DevQuery]) -> None:
    """Write them into a bundle's folder, for `bundled_dev` to read; nothing for none."""
    lines = "".join(json.dumps(_said(query), ensure_ascii=False) + "\n" for query in queries)
    if lines:
        write_text(folder / DEV_FILE, lines)


def _said(query: DevQuery) -> dict[str, object]:
    fields = None if query.fields is None else dict(query.fields)
    value = {"text": query.text, "fields": fields, "labels": query.labels, "exclude": query.exclude or None}
    return {name: one for name, one in value.items() if one is not None}


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from error


def _query(value: Any) -> DevQuery:
    """Raises InputError saying what is wrong with it."""
    if not isinstance(value, dict):
        raise InputError(f"is {json_kind(value)}; write one object a line")
    text, fields = value.get("text"), value.get("fields")
    if text is not None and not isinstance(text, str):
        raise InputError(f"text must be a string, is {json_kind(text)}")
    if fields is not None and not isinstance(fields, dict):
        raise InputError(f"fields must be an object, is {json_kind(fields)}")
    if not (text or "").strip() and not fields:
        raise InputError("has neither a text nor fields; give one of them")
    labels = None if value.get("labels") is None else _ids(value["labels"], "labels")
    exclude = () if value.get("exclude") is None else _ids(value["exclude"], "exclude")
    return DevQuery(text or "", fields or None, labels, exclude)


def _ids(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{name} must be a list of label ids")
    return tuple(dict.fromkeys(value))
