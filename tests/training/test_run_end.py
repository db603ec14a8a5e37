"""How a training run ends: with its best epoch kept, early, or when its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.collection import Collection
from trainer_support import stop_after, trainer_of
from training.batches import Batch
from training.checkpoint import BEST, CHECKPOINT, Point, load_best, load_checkpoint
from training.dataset import Dataset
from training.export import export_run
from training.run import start_run
from training.trainer import InterruptedRunError, Trainer, best_point


def with_dev(trainer: Trainer, figures: list[float]) -> None:
    left = iter(figures)
    trainer.dev_figures = lambda: {"P@1": 1.0, "nDCG@5": next(left)}  # type: ignore[method-assign]


def test_the_best_epoch_is_kept_and_exported(datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", ("training.epochs=4",)
    trainer = trainer_of(datasets(), *settings)
    start_run(run, corpus, datasets(), trainer.config)
    with_dev(trainer, [10.0, 60.0, 60.0, 20.0])
    vectors, save = [], trainer._save

    def noted(run: Path) -> None:
        vectors.append(trainer.label_vectors().numpy())
        save(run)

    trainer._save = noted  # type: ignore[method-assign]
    trainer.train(run)
    assert len(load_checkpoint(run)[1].curve) == 4
    assert len(load_best(run)[1].curve) == 2  # the first of equals
    assert (run / BEST).stat().st_ino != (run / CHECKPOINT).stat().st_ino
    said = list[str]()
    export_run(run, tmp_path / "collection", report=said.append)
    assert "epoch 2 of 4, the best by dev" in said[0]
    with Collection(tmp_path / "collection") as opened:
        sums = np.asarray(opened.snapshot.bundle.sums)
        units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    assert np.abs(units - vectors[1]).max() < 1e-5
    assert np.abs(units - vectors[3]).max() > 1e-3


def test_the_best_epoch_that_is_the_last_takes_no_room_of_its_own(
    datasets: Callable[..., Dataset], tmp_path: Path
) -> None:
    trainer = trainer_of(datasets())
    with_dev(trainer, [10.0, 20.0])
    trainer.train(tmp_path)
    assert (tmp_path / BEST).stat().st_ino == (tmp_path / CHECKPOINT).stat().st_ino


def test_a_later_epoch_that_is_better_is_kept_after_resuming(
    datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    settings = ("training.epochs=3",)
    broken = trainer_of(datasets(), *settings)
    start_run(tmp_path, corpus, datasets(), broken.config)
    with_dev(broken, [50.0])
    stop_after(broken, broken.per_epoch + 1)
    with pytest.raises(InterruptedRunError):
        broken.train(tmp_path)
    resumed = trainer_of(datasets(), *settings)
    resumed.resume(tmp_path)
    with_dev(resumed, [30.0, 70.0])
    resumed.train(tmp_path)
    assert [point.dev["nDCG@5"] for point in load_best(tmp_path)[1].curve] == [50.0, 30.0, 70.0]


def test_the_best_point_is_the_first_highest_or_the_last() -> None:
    def points(*figures: float | None) -> tuple[Point, ...]:
        dev: list[dict[str, float]] = [{} if figure is None else {"nDCG@5": figure} for figure in figures]
        return tuple(Point(place, 1, 1.0, 1.0, part) for place, part in enumerate(dev))

    def best(*figures: float | None) -> int | None:
        point = best_point(points(*figures))
        return None if point is None else point.epoch

    assert best() is None
    assert best(1.0, 3.0, 3.0, 2.0) == 1
    assert best(None, None) == 1
    assert best(0.0) == 0


def test_training_stops_where_dev_gets_no_better(datasets: Callable[..., Dataset], tmp_path: Path) -> None:
    for patience, epochs in ((0, 7), (1, 3), (2, 6)):
        trainer = trainer_of(datasets(), "training.epochs=7", f"training.patience={patience}")
        with_dev(trainer, [10.0, 30.0, 20.0, 40.0, 40.0, 39.0, 38.0])
        trainer.train(tmp_path / str(patience))
        assert trainer.position.epoch == epochs
        assert len(trainer.position.curve) == epochs


def test_a_time_limit_ends_the_run_near_it_and_the_run_can_be_exported(
    datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    run, limit = tmp_path / "run", 0.8
    trainer = trainer_of(datasets(), "training.epochs=100000", "training.warmup_steps=0", time_limit=limit)
    start_run(run, corpus, datasets(), trainer.config)
    scales, scale_of = list[float](), trainer._rate_scale

    def noted(batch: Batch) -> float:
        scales.append(scale_of(batch))
        return scales[-1]

    trainer._rate_scale = noted  # type: ignore[method-assign]
    began = time.monotonic()
    trainer.train(run)
    # On a busy machine a single step may take longer than the limit, but never the 100,000 epochs.
    assert limit <= trainer.position.seconds <= time.monotonic() - began < limit + 60
    assert scales[0] == 1.0
    assert scales[-1] < 1.0
    assert export_run(run, tmp_path / "collection", report=lambda line: None)
    again = trainer_of(datasets(), "training.epochs=100000", "training.warmup_steps=0", time_limit=limit)
    again.resume(run)
    epochs = again.position.epoch
    again.train(run)
    assert again.position.epoch == epochs  # the time was used up


def test_a_time_limit_shorter_than_a_step_still_gives_a_run(datasets: Callable[..., Dataset], tmp_path: Path) -> None:
    trainer = trainer_of(datasets(), time_limit=1e-9)
    trainer.train(tmp_path)
    assert (trainer.position.epoch, trainer.position.curve[0].step) == (1, 1)
    assert load_best(tmp_path)[1] == load_checkpoint(tmp_path)[1]
