from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

FILES = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_served_so_that_nothing_foreign_runs(reader: TestClient, path: str) -> None:
    answer = reader.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == FILES[path]
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_nothing_from_elsewhere(reader: TestClient) -> None:
    for path in FILES:
        assert not re.findall(r"//(?!www\.w3\.org/2000/svg)[\w-]+\.\w+", reader.get(path).text)
    parser = _Elements()
    parser.feed(reader.get("/").text)
    used = [
        attributes.get("src") or attributes.get("href") for tag, attributes in parser.found if tag in ("script", "link")
    ]
    assert {path for path in used if path and not path.startswith("data:")} == {"/page.css", "/page.js", "/icon.svg"}
    # The policy forbids what is written into the page itself.
    assert not any(name.startswith("on") or name == "style" for _, attributes in parser.found for name in attributes)
    assert not any(tag == "style" for tag, _ in parser.found)


def test_every_field_has_a_label(reader: TestClient) -> None:
    parser = _Elements()
    parser.feed(reader.get("/").text)
    labelled = {attributes.get("for") for tag, attributes in parser.found if tag == "label"}
    fields = {attributes.get("id") for tag, attributes in parser.found if tag in ("input", "textarea", "select")}
    assert fields and fields <= labelled


def test_data_never_becomes_markup(reader: TestClient) -> None:
    script = reader.get("/page.js").text
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
