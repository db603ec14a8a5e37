"""Training runs: they learn, resume exactly, stop cleanly, keep the best epoch, and refuse what is not theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.errors import BundleError, InputError, LabelspaceError
from tests_support import write_corpus
from trainer_support import KINDS, SHORT, check_resuming, each_step, losses, stop_after, trainer_of
from training.batches import Batch
from training.checkpoint import CHECKPOINT, load_checkpoint
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.losses import NamedLoss
from training.objective import Compared, Objective
from training.run import check_corpus_unchanged, start_run
from training.trainer import InterruptedRunError, Trainer


def test_learns_what_the_texts_say(tiny_run: Path) -> None:
    _, position = load_checkpoint(tiny_run)
    first, last = position.curve[0], position.curve[-1]
    assert last.loss < 0.2 * first.loss
    assert last.dev["P@1"] > 90


@pytest.mark.parametrize("name", list(KINDS))
def test_a_run_stopped_at_any_step_and_resumed_ends_where_an_unbroken_one_does(
    name: str, datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    settings = KINDS[name]
    dataset = datasets(*settings)
    last = trainer_of(dataset, *settings).per_epoch
    check_resuming((1, last - 1, last, last + 2), dataset, settings, corpus, tmp_path)


def test_a_run_stopped_again_and_again_ends_there_too(
    datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    whole = trainer_of(datasets())
    whole.train(tmp_path)
    run = tmp_path / "run"
    start_run(run, corpus, datasets(), whole.config)
    for stopped in range(whole.steps):
        part = trainer_of(datasets())
        if stopped:
            part.resume(run)
        stop_after(part, 1)
        with pytest.raises(InterruptedRunError):
            part.train(run)
    last = trainer_of(datasets())
    last.resume(run)
    last.train(run)
    assert losses(last) == pytest.approx(losses(whole), rel=1e-6)
    for name, value in whole.model.tensors().items():
        assert torch.equal(value, last.model.tensors()[name])


def test_the_same_seed_gives_the_same_run_and_another_does_not(datasets: Callable[..., Dataset]) -> None:
    one, same, other = trainer_of(datasets()), trainer_of(datasets()), trainer_of(datasets(), "training.seed=5")

    def first(trainer: Trainer) -> float:
        return trainer.step(next(iter(trainer.batches.epoch(0, trainer.batches.order(0)))))

    assert first(one) == first(same)
    assert first(one) != first(other)
    assert torch.equal(one.model.free, one.model.free)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    bad: float, datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(datasets())
    start_run(tmp_path / "run", corpus, datasets(), trainer.config)
    first = trainer.per_epoch
    each_step(trainer, lambda number, loss: bad if number == first + 2 else loss)
    with pytest.raises(LabelspaceError, match=rf"loss is {bad} at epoch 2, step 2; the checkpoint in .* before that"):
        trainer.train(tmp_path / "run")
    tensors, position = load_checkpoint(tmp_path / "run")
    assert (position.epoch, position.step) == (1, 0)
    assert all(value.isfinite().all() for value in tensors.values())


def test_a_weight_that_is_no_number_is_a_loss_that_is_none(datasets: Callable[..., Dataset], tmp_path: Path) -> None:
    trainer = trainer_of(datasets())
    trainer.model.free[0] = torch.nan
    with pytest.raises(LabelspaceError, match="loss is nan at epoch 1, step"):
        trainer.train(tmp_path)


@pytest.mark.parametrize("settings", [(), ("label.centroid=true",), ("tower.shared=false",)])
def test_in_chunks_a_step_is_the_same(settings: tuple[str, ...], datasets: Callable[..., Dataset]) -> None:
    none = ("training.feature_dropout=0", "label.free_dropout=0", "label.centroid_dropout=0", "negatives.kind=all")
    calm = (*none, *settings)
    whole, chunked = trainer_of(datasets(), *calm), trainer_of(datasets(), *calm, "training.chunk=5")
    for epoch in range(2):
        order = whole.batches.order(epoch)
        for one, same in zip(whole.batches.epoch(epoch, order), chunked.batches.epoch(epoch, order), strict=True):
            assert chunked.step(same) == pytest.approx(whole.step(one), rel=1e-5, abs=1e-6)
    for name, value in whole.model.tensors().items():
        assert torch.allclose(value, chunked.model.tensors()[name], atol=1e-4), name


def test_in_chunks_with_dropout_training_still_learns(datasets: Callable[..., Dataset], tmp_path: Path) -> None:
    trainer = trainer_of(datasets(), "training.chunk=3", "training.feature_dropout=0.2", "training.epochs=6")
    trainer.train(tmp_path)
    assert losses(trainer)[-1] < 0.7 * losses(trainer)[0]


@dataclass
class Seen:
    """Stands in for the objective and keeps what it was given."""

    objective: Objective
    compared: Compared | None = None

    def __call__(self, compared: Compared, random: np.random.Generator) -> torch.Tensor:
        self.compared = compared
        return self.objective(compared, random)

    @property
    def loss(self) -> NamedLoss:
        return self.objective.loss


@pytest.mark.parametrize("free", ["true", "false"])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_query_never_meets_itself_in_the_centroid_of_its_label(
    free: str, dropped: bool, datasets: Callable[..., Dataset], tmp_path: Path
) -> None:
    parts = [f"label.free={free}", "label.centroid=true", "negatives.kind=all", "training.feature_dropout=0"]
    share = 0.999999 if dropped else 0.0
    settings = (*parts, f"label.free_dropout={share}", f"label.centroid_dropout={share}")
    dataset = datasets(*settings)
    trainer = trainer_of(dataset, *settings)
    trainer.train(tmp_path)
    model = trainer.model
    assert model.centroids is not None
    last, n = model.centroids.vectors.double().numpy().copy(), dataset.counts.astype(np.float64)[:, None]
    truth = dataset.relevance.toarray().astype(np.float64)
    texts = model.labels.encode(dataset.labels).double().numpy()
    if free == "true" and not dropped:
        texts = texts + n / (n + 0.5) * model.free.double().numpy()
    rows = np.arange(len(dataset.queries))  # one batch of all queries: single-query labels are among them
    seen = Seen(trainer.objective)
    trainer.objective = seen  # type: ignore[assignment]
    trainer.step(Batch(5, 0, rows, np.random.default_rng(0)))
    assert seen.compared is not None
    assert seen.compared.own is not None
    pairs = np.argwhere(truth > 0)

    def label(query: int | None, row: int) -> NDArray[np.float64]:
        others = truth[:, row].copy()
        if query is not None:
            others[query] = 0
        total, count = others @ last, others.sum()
        length = np.linalg.norm(total) if count else 0.0
        centroid = count / (count + 1) * total / length if length and not dropped else np.zeros(32)
        vector = texts[row] + centroid
        return np.asarray(vector / np.linalg.norm(vector))

    labels, own = seen.compared.labels.detach().numpy(), seen.compared.own.detach().numpy()
    assert np.abs(labels - np.stack([label(None, row) for row in range(40)])).max() < 1e-4
    assert np.abs(own - np.stack([label(query, row) for query, row in pairs])).max() < 1e-4
    assert (n == 1).any()


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e6])
def test_gradients_are_no_longer_than_the_limit(clip: float, datasets: Callable[..., Dataset]) -> None:
    trainer, plain = trainer_of(datasets(), f"training.clip={clip}"), trainer_of(datasets())
    lengths, update = [], trainer.model.update

    def noted(scale: float) -> None:
        lengths.append(torch.cat([gradient.reshape(-1) for gradient in trainer.model.gradients()]).norm().item())
        update(scale)

    trainer.model.update = noted  # type: ignore[method-assign]
    batch, same = (next(iter(one.batches.epoch(0, one.batches.order(0)))) for one in (trainer, plain))
    assert trainer.step(batch) == plain.step(same)
    if clip == 1e-3:
        assert 0 < lengths[0] <= clip * 1.001
    else:
        assert lengths[0] > 1e-3
        assert torch.equal(trainer.model.free, plain.model.free)


def test_rates_rise_then_fall_to_a_twentieth(datasets: Callable[..., Dataset]) -> None:
    trainer = trainer_of(datasets(), "training.warmup_steps=3", "training.epochs=50")
    none = np.random.default_rng(0)
    scales = [
        trainer._rate_scale(Batch(step // trainer.per_epoch, step % trainer.per_epoch, np.zeros(0, np.int64), none))
        for step in range(trainer.steps)
    ]
    wanted = [min(1, (step + 1) / 4) * max(0.05, 1 - step / trainer.steps) for step in range(trainer.steps)]
    assert scales == pytest.approx(wanted)
    assert scales[0] < 0.3
    assert scales[-1] == 0.05


def test_dev_figures_are_those_of_float64_numpy(datasets: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = datasets()
    trainer = trainer_of(dataset)
    trainer.train(tmp_path)
    labels = trainer.label_vectors().double().numpy()
    queries = trainer.model.queries.encode(dataset.dev.items).double().numpy()
    truth = dataset.dev.relevance.toarray() > 0
    first, gain, recall = [], [], []
    for query, carried in zip(queries, truth, strict=True):
        order = np.argsort(-(labels @ query))
        discount = 1 / np.log2(np.arange(2, 7))
        first.append(carried[order[0]])
        gain.append(carried[order[:5]] @ discount / discount[: carried.sum()].sum())
        recall.append(carried[order[:10]].sum() / carried.sum())
    wanted = {"P@1": np.mean(first), "nDCG@5": np.mean(gain), "R@10": np.mean(recall)}
    assert trainer.dev_figures() == pytest.approx({name: 100 * value for name, value in wanted.items()}, abs=0.01)


def test_labels_without_training_rows_keep_their_text_vector(tiny_run: Path, tiny_corpus: Path) -> None:
    config = load_config(tiny_run / "config.toml")
    dataset = load_dataset(tiny_corpus, config)
    trainer = Trainer(dataset, config)
    trainer.resume(tiny_run)
    texts, vectors = trainer.model.labels.encode(dataset.labels), trainer.label_vectors()
    unseen = dataset.counts == 0
    assert unseen.sum() == 1
    assert torch.allclose(vectors[unseen], texts[unseen], atol=1e-6)
    assert not torch.allclose(vectors[~unseen], texts[~unseen], atol=1e-3)
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)


def test_refuses_another_config_another_corpus_and_a_second_start(
    datasets: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    run, dataset, config = tmp_path / "run", datasets(), load_config(None, SHORT)
    start_run(run, corpus, dataset, config)
    with pytest.raises(InputError, match="already"):
        start_run(run, corpus, dataset, config)
    with pytest.raises(BundleError, match="no checkpoint"):
        Trainer(dataset, config).resume(run)
    with pytest.raises(InputError, match=r"other values of loss\.prefixes, training\.batch; resume with the same"):
        trainer_of(dataset, "training.batch=7", "loss.prefixes=[4]").resume(run)
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


@pytest.mark.parametrize("name", list(KINDS))
def test_trains_on_one_query(name: str, tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "one", train=1, test=1)
    config = load_config(None, [*SHORT, *KINDS[name]])
    trainer = Trainer(load_dataset(folder, config), config)
    trainer.train(tmp_path)
    assert np.isfinite(losses(trainer)).all()
