"""One workplace for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from importing_support import Workplace


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)
