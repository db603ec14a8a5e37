"""TensorBoard curves: read back what was written, and nothing where none were asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from index.errors import InputError
from training.curves import Curves


def written(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, round(event.value, 5)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_every_tenth_step_and_every_dev_figure_is_written(tmp_path: Path) -> None:
    with Curves(tmp_path, 0) as curves:
        for step in range(25):
            curves.step(step + 0.5, 1 - step / 100)
        curves.dev({"nDCG@5": 61.5, "P@1": 70.0})
    assert written(tmp_path) == {
        "loss": [(10, 9.5), (20, 19.5)],
        "rate": [(10, 0.91), (20, 0.81)],
        "dev/nDCG@5": [(25, 61.5)],
        "dev/P@1": [(25, 70.0)],
    }


def test_what_an_interrupted_run_wrote_after_its_checkpoint_is_dropped(tmp_path: Path) -> None:
    with Curves(tmp_path, 0) as curves:
        for _ in range(40):
            curves.step(1.0, 1.0)
    with Curves(tmp_path, 20) as curves:
        for _ in range(10):
            curves.step(2.0, 1.0)
    assert written(tmp_path)["loss"] == [(10, 1.0), (30, 2.0)]


def test_without_a_run_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Curves(None, 0) as curves:
        for _ in range(30):
            curves.step(1.0, 1.0)
        curves.dev({"P@1": 1.0})
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(InputError, match=r"--tensorboard needs its package: pip install 'labelspace\[report\]'"):
        Curves(tmp_path, 0)
