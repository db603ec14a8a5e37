"""The command, called in this process: torch is loaded once for many calls."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.main import main


def called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path
) -> tuple[int, str, str]:
    """Exit code, output and the last line of standard error of a call."""
    monkeypatch.setattr(sys, "argv", ["labelspace", *(str(argument) for argument in arguments)])
    code: str | int | None = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert isinstance(code, int)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err.splitlines()[-1] if said.err else ""
