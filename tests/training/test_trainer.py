"""Training runs: they learn, resume exactly, stop cleanly, and refuse what does not belong together."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from index.errors import BundleError, InputError, LabelspaceError
from tests_support import TINY, write_corpus
from training.batches import Batch
from training.checkpoint import CHECKPOINT, load_checkpoint
from training.config import Config, load_config
from training.dataset import Dataset, load_dataset
from training.trainer import InterruptedRunError, Trainer, check_corpus_unchanged, start_run


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(None, [*TINY, "training.epochs=3"])


@pytest.fixture(scope="module")
def dataset(tiny_corpus: Path, config: Config) -> Dataset:
    return load_dataset(tiny_corpus, config)


def losses(trainer: Trainer) -> list[float]:
    return [point.loss for point in trainer.position.curve]


def test_learns_what_the_texts_say(tiny_run: Path) -> None:
    _, position = load_checkpoint(tiny_run)
    first, last = position.curve[0], position.curve[-1]
    assert last.loss < 0.2 * first.loss
    assert last.dev["P@1"] > 90


def test_a_run_stopped_at_any_step_and_resumed_ends_where_an_unbroken_one_does(
    dataset: Dataset, config: Config, tiny_corpus: Path, tmp_path: Path
) -> None:
    whole = Trainer(dataset, config)
    whole.train(tmp_path)
    for stop in (1, 5, whole.batches.per_epoch, whole.batches.per_epoch + 2):
        run = tmp_path / f"stopped{stop}"
        start_run(run, tiny_corpus, dataset, config)
        broken = Trainer(dataset, config)
        stop_after(broken, stop)
        with pytest.raises(InterruptedRunError, match=r"stopped after step \d+ of epoch [12]; go on .* --resume"):
            broken.train(run)
        resumed = Trainer(dataset, config)
        resumed.resume(run)
        resumed.train(run)
        assert torch.equal(resumed.model.embedding.table, whole.model.embedding.table)
        assert torch.equal(resumed.model.free, whole.model.free)
        assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)


def stop_after(trainer: Trainer, steps: int) -> None:
    """Send this process a SIGINT after so many steps, as Ctrl-C would."""
    step, done = trainer.step, 0

    def counted(batch: Batch) -> float:
        nonlocal done
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return step(batch)

    trainer.step = counted  # type: ignore[method-assign]


def test_the_same_seed_gives_the_same_run_and_another_does_not(
    dataset: Dataset, config: Config, tmp_path: Path
) -> None:
    one, same = Trainer(dataset, config), Trainer(dataset, config)
    other = Trainer(dataset, load_config(None, [*TINY, "training.epochs=3", "training.seed=5"]))
    batch = next(iter(one.batches.epoch(0)))
    again = next(iter(same.batches.epoch(0)))
    assert one.step(batch) == same.step(again)
    assert torch.equal(one.model.embedding.table, same.model.embedding.table)
    assert not torch.equal(one.model.embedding.table, other.model.embedding.table)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    dataset: Dataset, config: Config, tiny_corpus: Path, tmp_path: Path
) -> None:
    start_run(tmp_path / "run", tiny_corpus, dataset, config)
    trainer = Trainer(dataset, config)
    first = trainer.batches.per_epoch
    step, done = trainer.step, 0

    def poisoned(batch: Batch) -> float:
        nonlocal done
        done += 1
        return float("nan") if done == first + 2 else step(batch)

    trainer.step = poisoned  # type: ignore[method-assign]
    with pytest.raises(LabelspaceError, match=r"loss is nan at epoch 2, step 2"):
        trainer.train(tmp_path / "run")
    _, position = load_checkpoint(tmp_path / "run")
    assert (position.epoch, position.step) == (1, 0)


def test_labels_without_training_rows_keep_their_text_vector(tiny_run: Path, tiny_corpus: Path) -> None:
    config = load_config(tiny_run / "config.toml")
    dataset = load_dataset(tiny_corpus, config)
    trainer = Trainer(dataset, config)
    trainer.resume(tiny_run)
    texts, vectors = trainer.model.encode(dataset.labels), trainer.label_vectors()
    unseen = dataset.counts == 0
    assert unseen.sum() == 1
    assert torch.allclose(vectors[unseen], texts[unseen], atol=1e-6)
    assert not torch.allclose(vectors[~unseen], texts[~unseen], atol=1e-3)
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


def test_refuses_another_config_another_corpus_and_a_second_start(
    dataset: Dataset, config: Config, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    start_run(run, tiny_corpus, dataset, config)
    with pytest.raises(InputError, match="already"):
        start_run(run, tiny_corpus, dataset, config)
    with pytest.raises(BundleError, match="no checkpoint"):
        Trainer(dataset, config).resume(run)
    with pytest.raises(InputError, match=r"training\.batch"):
        Trainer(dataset, load_config(None, [*TINY, "training.epochs=3", "training.batch=7"])).resume(run)
    other = load_dataset(write_corpus(tmp_path / "other", train=60), config)
    with pytest.raises(InputError, match="another corpus"):
        check_corpus_unchanged(run, other)
    with pytest.raises(InputError, match="no run is here"):
        check_corpus_unchanged(tmp_path / "nowhere", dataset)


def test_refuses_a_damaged_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    data = (tiny_run / CHECKPOINT).read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"\xff" * 64):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(BundleError, match="damaged"):
            load_checkpoint(tmp_path)


def test_trains_on_one_query_and_two_labels(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "one", train=1, test=1)
    config = load_config(None, [*TINY, "training.epochs=2"])
    trainer = Trainer(load_dataset(folder, config), config)
    trainer.train(tmp_path)
    assert np.isfinite(losses(trainer)).all()
