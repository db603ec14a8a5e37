"""Held-out queries in a bundle and in a file: read as they were written, and bad lines named."""

from __future__ import annotations

from pathlib import Path

import pytest

from index.dev_queries import DevQuery, bundled_dev, read_dev, write_dev
from index.errors import InputError


def test_dev_queries_come_back_as_they_were(tmp_path: Path) -> None:
    queries = [
        DevQuery("bicycle repair", None, ("s1", "s2")),
        DevQuery("nobody said what this is"),
        DevQuery("", {"type": ["書", "b"], "year": 1}, ()),
        DevQuery("line\nbreak 😀\u2028", {"only": None}, ("ä",), ("b", "c")),
    ]
    write_dev(tmp_path, queries)
    assert bundled_dev(tmp_path) == queries
    assert bundled_dev(tmp_path / "nowhere") == []
    (tmp_path / "none").mkdir()
    write_dev(tmp_path / "none", [])
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[]", ":2: is a list"),
        ("{", ":2: is not valid JSON"),
        ('{"text": 1}', ":2: text must be a string, is a number"),
        ('{"text": " "}', ":2: has neither a text nor fields"),
        ('{"text": "a", "fields": 3}', ":2: fields must be an object"),
        ('{"text": "a", "labels": "b"}', ":2: labels must be a list of label ids"),
        ('{"text": "a", "exclude": [1]}', ":2: exclude must be a list of label ids"),
        ('{"text": "a", "text": "b"}', ":2: has the key 'text' twice"),
        ("\udcff", ":2: is not valid UTF-8"),
        ("", ":2: is not valid JSON"),
    ],
)
def test_a_bad_line_is_named(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"text": "good"}\n' + line + "\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=reason):
        read_dev(path)


def test_a_file_of_queries_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be read"):
        read_dev(tmp_path / "nowhere")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="has no queries"):
        read_dev(tmp_path / "empty")
