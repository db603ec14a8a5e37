"""`labelspace plan` as a user calls it."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cli.planning import format_plan, parse_size, plan
from index.errors import InputError
from index.plan import Calibration, IndexPlan, Plan


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4GB", 4 * 10**9), (" 4 gb ", 4 * 10**9), ("1.5GiB", 3 * 2**29), ("500MB", 5 * 10**8), ("0.5kB", 500)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "GB", "-1GB", "4 GB RAM", "1e9", "0.1", "٤GB", "4PB", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match=r"--memory .*: is no size"):
        parse_size(text)


def test_a_plan_is_shown() -> None:
    labels = IndexPlan("HNSW14,SQ8", 1_000_000, 384_123_456, 1500.0, 600_000_000)
    examples = IndexPlan("Flat", 10_000, 10_240_000, 1.0, 30_000_000)
    assert format_plan(Plan(labels, examples, 256, 2, 394_363_456, 1_418_363_456, 751.0)) == [
        "1,000,000 labels of 256 dimensions",
        "  index       HNSW14,SQ8, 384 MB, 384 bytes each",
        "10,000 examples",
        "  memory      Flat, 10.2 MB, 1024 bytes each",
        "together",
        "  memory      394 MB",
        "  disk        1.42 GB, label vectors included",
        "  build time  13 min on 2 threads, with 600 MB of memory",
    ]
    alone = format_plan(Plan(labels, None, 256, 1, 999, 10**15, 9000.0))
    assert alone[2:] == [
        "together",
        "  memory      999 bytes",
        "  disk        1,000,000 GB, label vectors included",
        "  build time  2.5 h on 1 thread, with 600 MB of memory",
    ]


def test_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.plan.calibrated", lambda *_: Calibration(0.0, 1e-3, 10_000, 1e-4, 1e-9, 1e-10))
    said = CliRunner().invoke(plan, ["--labels", "1000", "--dim", "8", "--memory", "1MB"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "index       Flat, 32 kB, 32 bytes each" in said.output
    assert "build time  1 s on 1 thread" in said.output


@pytest.mark.parametrize("arguments", [[], ["--labels", "0", "--dim", "8"], ["--labels", "x", "--dim", "8"]])
def test_a_wrong_call(arguments: list[str]) -> None:
    said = CliRunner().invoke(plan, arguments)
    assert said.exit_code == click.UsageError.exit_code
    assert "Traceback" not in said.output
