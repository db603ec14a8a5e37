"""Short runs on a small corpus, and a look at each of their steps, for the tests of the trainer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests_support import TINY
from training.batches import Batch
from training.checkpoint import load_checkpoint
from training.config import load_config
from training.dataset import Dataset
from training.run import start_run
from training.trainer import InterruptedRunError, Trainer

SHORT = (*TINY, "training.epochs=2", "training.batch=16", "negatives.sampled=10")
KINDS = {
    "uniform": ("negatives.log_weight=true",),
    "in_batch": ("negatives.kind=in_batch", "training.chunk=7"),
    "clustered": ("negatives.kind=clustered", "negatives.cluster_start=2", "negatives.cluster_end=8"),
    "cached": ("negatives.kind=cached", "negatives.hardest=5", "negatives.refresh=4"),
    "mined": ("negatives.kind=mined", "negatives.mined=2", "negatives.refresh=3"),
    "all": ("negatives.kind=all", "label.free=false"),
    "centroid": ("label.centroid=true", "label.text_queries=true"),
    "sigmoid": ("loss.name=sigmoid",),
    "one_positive": ("loss.name=softmax_one_positive", "tower.dropout=0.3"),
    "nested_mixed": ("loss.prefixes=[8, 16]", "loss.mixup=0.5"),
    "apart": ("tower.shared=false", "training.clip=0.5"),
    "separate": ("features.separate=true", "features.probes=2", "tower.row=8", "tower.dropout=0.2"),
}


def trainer_of(dataset: Dataset, *settings: str, time_limit: float | None = None) -> Trainer:
    return Trainer(dataset, load_config(None, [*SHORT, *settings]), time_limit=time_limit)


def losses(trainer: Trainer) -> list[float]:
    return [point.loss for point in trainer.position.curve]


def each_step(trainer: Trainer, changed: Callable[[int, float], float]) -> list[float]:
    """Let `changed` see the number of every step from 1 and its loss, and say what the trainer gets to see."""
    step, seen = trainer.step, list[float]()

    def counted(batch: Batch) -> float:
        seen.append(step(batch))
        return changed(len(seen), seen[-1])

    trainer.step = counted  # type: ignore[method-assign]
    return seen


def check_resuming(stops: Sequence[int], dataset: Dataset, settings: Sequence[str], corpus: Path, folder: Path) -> None:
    """A run of two epochs that is stopped after any of these steps, and resumed, ends where an unbroken one does."""
    whole = trainer_of(dataset, *settings)
    wanted = each_step(whole, lambda number, loss: loss)
    whole.train(folder)
    assert np.isfinite(wanted).all()
    assert losses(whole) == pytest.approx(np.reshape(wanted, (2, -1)).mean(axis=1), rel=1e-6)
    for stop in stops:
        run = folder / f"stopped{stop}"
        start_run(run, corpus, dataset, whole.config)
        broken = trainer_of(dataset, *settings)
        found = stop_after(broken, stop)
        with pytest.raises(InterruptedRunError, match=r"stopped after step \d+ of epoch [12]; go on .* --resume"):
            broken.train(run)
        resumed = trainer_of(dataset, *settings)
        resumed.resume(run)
        later = each_step(resumed, lambda number, loss: loss)
        resumed.train(run)
        assert found + later == pytest.approx(wanted, rel=1e-6)
        assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
        kept, same = load_checkpoint(folder)[0], load_checkpoint(run)[0]
        assert set(kept) == set(same)
        for key, value in kept.items():
            assert torch.equal(value, same[key]), key


def stop_after(trainer: Trainer, steps: int) -> list[float]:
    """Send this process a SIGINT in so many steps, as Ctrl-C would."""

    def interrupted(number: int, loss: float) -> float:
        if number == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    return each_step(trainer, interrupted)
