"""A running service to read from, one to write to, and the check that every error has to pass."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from service import create_app

Refused = Callable[[Response, int, str], dict[str, Any]]


@pytest.fixture(scope="session")
def reader(tiny_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that is not to be written to."""
    folder = shutil.copytree(tiny_collection, tmp_path_factory.mktemp("service") / "read")
    with TestClient(create_app(Path(folder))) as client:
        yield client


@pytest.fixture
def writer(collection: Path) -> Iterator[TestClient]:
    """A service on a collection of one's own."""
    with TestClient(create_app(collection)) as client:
        yield client


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Checks that a response is a whole problem of this status and name; returns its members."""

    def check(response: Response, status: int, name: str) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = response.json()
        assert problem["type"] == f"urn:labelspace:problem:{name}"
        assert problem["status"] == status
        assert problem["title"] and problem["detail"]
        assert problem["instance"] == response.request.url.raw_path.decode().partition("?")[0]
        assert problem["request_id"] == response.headers["x-request-id"]
        assert "Traceback" not in response.text
        return problem

    return check
