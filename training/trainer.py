"""The training loop: batches of queries against pools of labels, readable from top to bottom."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from index.errors import InputError, LabelspaceError, first_line
from index.features import stack_bags
from index.files import write_json
from training.batches import Batch, Batches
from training.checkpoint import (
    Point,
    Position,
    adamw_tensors,
    load_checkpoint,
    restore_adamw,
    save_checkpoint,
)
from training.config import Config, differing_keys, load_config, save_config
from training.dataset import Dataset
from training.dual_encoder import DualEncoder
from training.losses import decoupled_softmax
from training.metrics import Judged
from training.progress import Progress
from training.row_adagrad import RowAdagrad
from training.unified_embedding import Lookup

CONFIG = "config.toml"
_CORPUS = "corpus.json"
_FINAL_RATE = 0.05
_DEV_ROWS = 1000
_DEV_BLOCK = 256


class InterruptedRunError(LabelspaceError):
    """The run was stopped by a signal and can be resumed."""


class Trainer:
    """One run: the model, its optimisers, and where it stands."""

    def __init__(self, dataset: Dataset, config: Config) -> None:
        self.dataset, self.config = dataset, config
        training = config.training
        torch.set_num_threads(training.threads)
        self.model = DualEncoder(config, dataset.counts)
        self.batches = Batches(
            dataset.relevance, training.batch, training.sampled_labels, training.unseen_share, training.seed
        )
        self.per_epoch = self.batches.per_epoch
        self.steps = training.epochs * self.per_epoch
        embedding = self.model.embedding
        self.sparse = {
            "table": RowAdagrad(embedding.table, training.table_rate),
            "gates": RowAdagrad(embedding.gates, training.gate_rate),
            "free": RowAdagrad(self.model.free, training.free_rate),
        }
        self.names = [name for name, _ in self.model.head.named_parameters()]
        self.dense = torch.optim.AdamW(
            self.model.head.parameters(), lr=training.dense_rate, weight_decay=training.weight_decay
        )
        self.position = Position()

    def train(self, run: Path) -> None:
        """Train to the end from the current position, with a checkpoint in `run` after every epoch.

        Raises InterruptedRunError after SIGINT or SIGTERM, once the checkpoint is written, and LabelspaceError when
        the loss is no number any more; the last good checkpoint then stays.
        """
        done = self.position.epoch * self.per_epoch + self.position.step
        with _stop_signals() as stop, Progress("training", self.steps, "steps", done=done) as progress:
            while self.position.epoch < self.config.training.epochs:
                self._epoch(run, progress, stop)
                self._save(run)

    def _epoch(self, run: Path, progress: Progress, stop: _Stop) -> None:
        began = time.monotonic() - self.position.seconds
        for batch in self.batches.epoch(self.position.epoch, first=self.position.step):
            loss = self.step(batch)
            if not math.isfinite(loss):
                raise LabelspaceError(
                    f"loss is {loss} at epoch {batch.epoch + 1}, step {batch.step + 1}; the checkpoint in {run} "
                    "is from before that; try lower training.table_rate and training.dense_rate"
                )
            self.position = dataclasses.replace(
                self.position,
                step=batch.step + 1,
                seconds=time.monotonic() - began,
                loss_sum=self.position.loss_sum + loss,
            )
            progress.advance(1, f"epoch {batch.epoch + 1}, loss {self.position.loss_sum / (batch.step + 1):.3f}")
            if stop.asked:
                self._save(run)
                raise InterruptedRunError(
                    f"stopped after step {batch.step + 1} of epoch {batch.epoch + 1}; "
                    "go on with the same command and --resume"
                )
        epoch, seconds = self.position.epoch, time.monotonic() - began
        dev = self.dev_figures()
        point = Point(epoch, self.per_epoch, seconds, self.position.loss_sum / self.per_epoch, dev)
        figures = ", ".join(f"{name} {value:.1f}" for name, value in dev.items())
        progress.say(
            f"epoch {epoch + 1}: loss {point.loss:.4f}, {seconds:.0f} s, dev (tower alone): {figures or 'none'}"
        )
        self.position = Position(epoch + 1, seconds=time.monotonic() - began, curve=(*self.position.curve, point))

    def step(self, batch: Batch) -> float:
        """One update from one batch; returns its loss."""
        training = self.config.training
        bags = stack_bags(self.dataset.queries.take(batch.queries), self.dataset.labels.take(batch.pool))
        keep = batch.random.random(len(bags.rows), dtype=np.float32) >= training.feature_dropout
        lookup = Lookup.of(bags, keep)
        pool = torch.from_numpy(batch.pool)
        rows, gates = self.model.embedding.touched(lookup)
        free = self.model.free[pool].requires_grad_()
        known = torch.from_numpy(batch.random.random((len(pool), 1), dtype=np.float32) >= training.free_dropout)

        self.model.head.train()
        torch.manual_seed(int(batch.random.integers(1 << 62)))
        vectors = self.model.head(self.model.embedding.pooled(lookup, rows, gates))  # (queries + pool, dim)
        queries, texts = vectors[: len(batch.queries)], vectors[len(batch.queries) :]
        labels = self.model.label_vectors(texts, pool, free * known)  # (pool, dim)
        scores = queries @ labels.T / training.temperature  # (queries, pool)
        loss = decoupled_softmax(scores, torch.from_numpy(batch.positive))

        self.dense.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        scale = self._rate_scale(batch)
        for group in self.dense.param_groups:
            group["lr"] = training.dense_rate * scale
        self.dense.step()
        for name, where, leaf in (("table", lookup.rows, rows), ("gates", lookup.rows, gates), ("free", pool, free)):
            assert leaf.grad is not None  # noqa: S101 - every leaf takes part in the loss
            self.sparse[name].step(where, leaf.grad, scale)
        return float(loss.detach())

    def dev_figures(self) -> dict[str, float]:
        """P@1, nDCG@5 and R@10 in percent of the tower alone, exact search, on dev rows thinned to 1,000."""
        dev = self.dataset.dev
        rows = np.flatnonzero(np.diff(dev.relevance.indptr))
        if not len(rows):
            return {}
        rows = rows[:: -(-len(rows) // _DEV_ROWS)]
        labels = self.label_vectors()
        queries = self.model.encode(dev.bags.take(rows))
        depth = min(10, len(labels))
        best = [(part @ labels.T).topk(depth, dim=1).indices for part in torch.split(queries, _DEV_BLOCK)]
        judged = Judged.of(torch.cat(best).numpy(), dev.relevance[rows])
        figures = {"P@1": judged.precision(1), "nDCG@5": judged.ndcg(5), "R@10": judged.recall(10)}
        return {name: 100 * value for name, value in figures.items()}

    def label_vectors(self) -> Tensor:
        """Unit vectors of all labels, (labels, dim)."""
        everything = torch.arange(len(self.model.free))
        return self.model.label_vectors(self.model.encode(self.dataset.labels), everything, self.model.free)

    def resume(self, run: Path) -> None:
        """Take over the state of a run. Raises InputError naming the settings in which it differs from this one."""
        differing = differing_keys(load_config(run / CONFIG), self.config)
        if differing:
            raise InputError(
                f"{run}: was started with other values of {', '.join(differing)}; resume with the same ones"
            )
        tensors, self.position = load_checkpoint(run)
        load_model(self.model, tensors)
        for name, optimiser in self.sparse.items():
            optimiser.accumulator.copy_(tensors[f"adagrad.{name}"])
        restore_adamw(self.dense, self.names, tensors)

    def _save(self, run: Path) -> None:
        state = model_tensors(self.model)
        for name, optimiser in self.sparse.items():
            state[f"adagrad.{name}"] = optimiser.accumulator
        save_checkpoint(run, state | adamw_tensors(self.dense, self.names), self.position)

    def _rate_scale(self, batch: Batch) -> float:
        """Linear warm-up, then linear decay to a twentieth."""
        step = batch.epoch * self.per_epoch + batch.step
        warm_up = min(1.0, (step + 1) / (self.config.training.warmup_steps + 1))
        return warm_up * max(_FINAL_RATE, 1 - step / self.steps)


def model_tensors(model: DualEncoder) -> dict[str, Tensor]:
    head = {f"head.{name}": value for name, value in model.head.state_dict().items()}
    return {"table": model.embedding.table, "gates": model.embedding.gates, "free": model.free, **head}


def load_model(model: DualEncoder, tensors: dict[str, Tensor]) -> None:
    """Copy a checkpoint's weights into a model of the same shapes."""
    model.embedding.table.copy_(tensors["table"])
    model.embedding.gates.copy_(tensors["gates"])
    model.free.copy_(tensors["free"])
    names = model.head.state_dict()
    model.head.load_state_dict({name: tensors[f"head.{name}"] for name in names})


def start_run(run: Path, corpus: Path, dataset: Dataset, config: Config) -> None:
    """Make the run's folder with its settings. Raises InputError when a run is there already."""
    if (run / CONFIG).exists():
        raise InputError(f"{run}: a run is there already; go on with --resume, or choose another folder with --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
        save_config(config, run / CONFIG)
    except OSError as error:
        raise InputError(f"{run}: cannot be made ({error.strerror})") from error
    write_json(run / _CORPUS, {"folder": str(corpus.resolve()), "fingerprint": dataset.fingerprint})


def corpus_of(run: Path) -> Path:
    """The corpus folder that the run was started with. Raises InputError when there is no run."""
    return Path(_corpus_note(run)["folder"])


def check_corpus_unchanged(run: Path, dataset: Dataset) -> None:
    """Raises InputError when the run was trained on another corpus: its rows would mean other labels."""
    if _corpus_note(run)["fingerprint"] != dataset.fingerprint:
        raise InputError(f"{run}: was trained on another corpus, or the corpus has changed since; train a new run")


def _corpus_note(run: Path) -> dict[str, str]:
    try:
        note = json.loads((run / _CORPUS).read_text(encoding="utf-8"))
        return {"folder": str(note["folder"]), "fingerprint": str(note["fingerprint"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: no run is here ({first_line(error)}); `labelspace train` makes one") from error


class _Stop:
    """Whether a signal has asked the run to stop."""

    asked = False


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn SIGINT and SIGTERM into a question that the loop answers after the step it is in."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
