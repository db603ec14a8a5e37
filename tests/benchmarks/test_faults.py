"""The faults that the benchmark provokes, a handful of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import JOBS, flip_bits, kill, replay, turn_back_clock


@pytest.mark.parametrize("name", list(JOBS))
def test_what_was_acknowledged_survives_kills(collection: Path, name: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if JOBS[name].postgres else ""
    done = kill(JOBS[name], collection, url, 2, seed=1)
    assert done["kills"] == 2


def test_flipped_bits_are_found(collection: Path) -> None:
    assert flip_bits(collection, 1)["flips_found"] > 20


def test_a_clock_that_jumps_changes_nothing(collection: Path) -> None:
    assert turn_back_clock(collection) == {"changes": 50}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_log_is_written_and_replayed(collection: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else ""
    done = replay(collection, url, 1000)
    # Seven of ten are new, one of these is removed again.
    assert (done["changes"], done["labels"]) == (1000, 40 + 700 - 100)
