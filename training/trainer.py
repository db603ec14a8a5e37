"""The training loop: batches of queries against pools of labels, readable from top to bottom."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from index.errors import BundleError, LabelspaceError, first_line
from index.label_vector import centroid_part, free_part, label_sum, unit
from training.adamw import adamw_tensors, restore_adamw
from training.batches import Batch, Batches
from training.checkpoint import CHECKPOINT, Point, Position, keep_best, load_checkpoint, save_checkpoint
from training.clusters import balanced_clusters, cluster_size
from training.compatibility import Compatibility
from training.config import Config
from training.curves import Curves
from training.dataset import Dataset
from training.distributed import PeerGoneError, World, objective_of, placed, progress_of
from training.dual_encoder import DualEncoder
from training.frozen_tower import LabelRows
from training.gradient_cache import Chunked, cached_backward, chunks_of
from training.metrics import Judged, without
from training.negatives import Negatives, Pool
from training.objective import Compared, Objective
from training.progress import Progress
from training.published import check_bundle, check_query_tower
from training.run import check_same_settings
from training.signals import Stop, stop_signals

if TYPE_CHECKING:
    from training.published import Published
    from training.warm_start import Earlier

_FINAL_RATE = 0.05
_DEV_ROWS = 1000
_DEV_BLOCK = 256
_CHOSEN_BY = "nDCG@5"


class InterruptedRunError(LabelspaceError):
    """The run was stopped by a signal and can be resumed."""


class Trainer:
    """One run: the model, its optimisers, and where it stands."""

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        *,
        time_limit: float | None = None,
        world: World | None = None,
        published: Published | None = None,
    ) -> None:
        """time_limit: seconds of training after which the run ends, its rates having fallen by then.

        world: the processes that train this run together, each with a Trainer of its own; None for this one alone.
        published: whose label vectors the queries are trained against; None to train the labels, too.
        Raises InputError when the settings are of a run against another bundle, or its vectors cannot be met.
        """
        self.dataset, self.config, self.time_limit = dataset, config, time_limit
        self.world = world or World()
        training = config.training
        torch.set_num_threads(training.threads)
        check_bundle(config, published)
        vectors = None if published is None else published.label_vectors(dataset, training.threads)
        self.model = DualEncoder(placed(config, self.world), dataset, vectors)
        self.compatibility: Compatibility | None = None
        if published is not None:
            check_query_tower(published, self.model.queries.spec, self.model.queries.dim)
            self.dataset = dataclasses.replace(dataset, labels=LabelRows(np.arange(len(dataset.label_ids))))
            if config.compatible.weight:
                old = published.encode_queries(dataset.queries, training.threads)
                self.compatibility = Compatibility(config.compatible, old, dataset.relevance, self.world)
        self.batches = Batches(dataset.relevance, training.batch, training.seed)
        self.negatives = Negatives(
            dataset.relevance, dataset.excluded, config.negatives, config.loss.temperature, self.model.queries.device
        )
        self.objective = objective_of(config.loss, self.model.queries.dim, self.world)
        self.loss_optimiser = _optimiser_of(self.objective, training.dense_rate)
        self.per_epoch = self.batches.per_epoch
        self.steps = training.epochs * self.per_epoch
        self.position = Position()
        self.order: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None

    def train(self, run: Path, *, tensorboard: bool = False) -> None:
        """Train to the end from the current position, with a checkpoint in `run` after every epoch.

        The best epoch by nDCG@5 on dev is kept beside it. Raises InterruptedRunError after SIGINT or SIGTERM, once the
        checkpoint is written, and LabelspaceError when the loss is no number any more or another process of the run has
        gone; the last good checkpoint then stays. Of several processes, the first alone writes into `run`.
        """
        done = self.position.epoch * self.per_epoch + self.position.step
        curves = Curves(run if tensorboard and self.world.first else None, done)
        try:
            with curves, stop_signals() as stop, progress_of(self.world, self.steps, done) as progress:
                progress.say(f"each query is compared with {self.negatives.describe()}")
                while self.position.epoch < self.config.training.epochs and not self._over():
                    self._epoch(run, progress, stop, curves)
                    self._save(run)
        except PeerGoneError as error:
            kept = f"the checkpoint in {run} is whole; go on with the same command and --resume"
            if not (run / CHECKPOINT).is_file():
                kept = f"there is no checkpoint in {run} yet; start again in another folder"
            raise PeerGoneError(f"{error}; {kept}") from error

    def _over(self) -> bool:
        """Whether the time is used up, or dev has not become better for `patience` epochs."""
        curve, patience = self.position.curve, self.config.training.patience
        if self.time_limit is not None and self.position.seconds >= self.time_limit:
            return True
        best = best_point(curve)
        return bool(patience) and best is not None and curve[-1].epoch - best.epoch >= patience

    def _epoch(self, run: Path, progress: Progress, stop: Stop, curves: Curves) -> None:
        began = time.monotonic() - self.position.seconds
        if self.order is None:
            self.order = self.batches.order(self.position.epoch, self._clusters())
        for batch in self.batches.epoch(self.position.epoch, self.order, first=self.position.step):
            loss = self.step(batch)
            if not math.isfinite(loss):
                raise LabelspaceError(
                    f"loss is {loss} at epoch {batch.epoch + 1}, step {batch.step + 1}; the checkpoint in {run} "
                    "is from before that; try lower training.table_rate and training.dense_rate"
                )
            asked, seconds = self.world.agree(stop.asked, time.monotonic() - began)
            self.position = dataclasses.replace(
                self.position,
                step=batch.step + 1,
                seconds=seconds,
                loss_sum=self.position.loss_sum + loss,
            )
            curves.step(loss, self._rate_scale(batch))
            progress.advance(1, f"epoch {batch.epoch + 1}, loss {self.position.loss_sum / (batch.step + 1):.3f}")
            if asked:
                self._save(run)
                raise InterruptedRunError(
                    f"stopped after step {batch.step + 1} of epoch {batch.epoch + 1}; "
                    "go on with the same command and --resume"
                )
            if self.time_limit is not None and self.position.seconds >= self.time_limit:
                break
        self._end_epoch(progress, curves, began)

    def _end_epoch(self, progress: Progress, curves: Curves, began: float) -> None:
        epoch, steps, seconds = self.position.epoch, max(1, self.position.step), time.monotonic() - began
        dev = self.dev_figures()
        _, after = self.world.agree(False, time.monotonic() - began)
        point = Point(epoch, steps, seconds, self.position.loss_sum / steps, dev)
        figures = ", ".join(f"{name} {value:.1f}" for name, value in dev.items())
        progress.say(
            f"epoch {epoch + 1}: loss {point.loss:.4f}, {seconds:.0f} s, dev (tower alone): {figures or 'none'}"
        )
        curves.dev(dev)
        self.order = None
        self.position = Position(epoch + 1, seconds=after, curve=(*self.position.curve, point))

    def step(self, batch: Batch) -> float:
        """One update from one batch; returns its loss."""
        step = batch.epoch * self.per_epoch + batch.step
        if self.negatives.due(step):
            self.negatives.refresh(self.label_vectors())
        loss, free, pool = self._backward(batch)
        if self.world.size > 1:
            loss = self._sum_gradients(loss, free)
        scale = self._rate_scale(batch)
        self._clip([*self.model.gradients(), *([] if free.grad is None else [free.grad])])
        self.model.update(scale)
        if free.grad is not None:
            self.model.update_free(torch.from_numpy(pool.labels), free.grad, scale)
        if self.loss_optimiser is not None:
            for group in self.loss_optimiser.param_groups:
                group["lr"] = self.config.training.dense_rate * scale
            self.loss_optimiser.step()
            self.loss_optimiser.zero_grad()
        return loss

    def _backward(self, batch: Batch) -> tuple[float, Tensor, Pool]:
        """The loss of the batch, its gradients left with the towers; the pool's free vectors with theirs, the pool."""
        queries = self.dataset.queries.take(batch.queries)
        vectors = None
        if self.negatives.needs_vectors:
            vectors = self.world.encode(self.model.queries, queries)
        pool = self.negatives.pool(batch.queries, vectors, batch.random)
        labels = self.dataset.labels.take(pool.labels)
        free = self.model.free[torch.from_numpy(pool.labels).to(self.model.free.device)].requires_grad_()

        def loss_of(q: Tensor, texts: Tensor) -> Tensor:
            q, texts = self.world.vectors(q, texts, (len(queries), len(labels)))
            compared = self._compared(batch, q, texts, free, pool)
            self.negatives.write_back(pool.labels, compared.labels)
            if self.model.centroids is not None:
                self.model.centroids.update(batch.queries, q)
            value = self.objective(compared, batch.random)
            return value if self.compatibility is None else self.compatibility.mixed(value, batch.queries, q)

        chunk = self.config.training.chunk
        chance = self.model.own_chance(self.world, queries, labels, chunk, batch.random)
        own_queries, own_labels = self.world.own(queries), self.world.own(labels)
        if chunk:
            sides = [
                Chunked(self.model.queries.batch, chunks_of(own_queries, chunk)),
                Chunked(self.model.labels.batch, chunks_of(own_labels, chunk)),
            ]
            return float(cached_backward(sides, loss_of, chance)), free, pool
        loss = loss_of(*self.model.batch(own_queries, own_labels, chance))
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), free, pool

    def _sum_gradients(self, loss: float, free: Tensor) -> float:
        """Of all processes; returns their losses' sum."""
        self.model.sum_gradients(self.world)
        total = torch.tensor([loss], dtype=torch.float64)
        learned = [parameter.grad for parameter in self.objective.loss.parameters()]
        self.world.sum([total, *(gradient for gradient in (free.grad, *learned) if gradient is not None)])
        return float(total)

    def _compared(self, batch: Batch, queries: Tensor, texts: Tensor, free: Tensor, pool: Pool) -> Compared:
        """Label vectors by the one formula, a random share of the labels without their free vector or centroid."""
        config, centroids = self.config.label, self.model.centroids
        where = torch.from_numpy(pool.labels)
        counts = self.model.counts[where.to(self.model.counts.device)]
        parts = []
        if config.free:
            parts.append(_kept(len(where), config.free_dropout, batch.random).to(texts) * free_part(free, counts))
        if centroids is None:
            return Compared(queries, unit(label_sum(texts, *parts)), pool, rest=self.negatives.rest(pool))
        kept = _kept(len(where), config.centroid_dropout, batch.random).to(texts)
        labels = label_sum(texts, *parts, kept * centroid_part(centroids.sums[where].to(texts), counts))
        rows, columns = (torch.from_numpy(side) for side in pool.positive.nonzero())
        own = centroids.without(where[columns], torch.from_numpy(batch.queries)[rows]).to(texts)
        fewer = (counts[columns] - 1).clamp(min=0)
        pairs = label_sum(texts[columns], *(part[columns] for part in parts), kept[columns] * centroid_part(own, fewer))
        return Compared(queries, unit(labels), pool, unit(pairs), self.negatives.rest(pool))

    def _clip(self, gradients: list[Tensor]) -> None:
        if self.config.training.clip:
            norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
            scale = min(1.0, self.config.training.clip / (float(norm) + 1e-12))
            for gradient in gradients:
                gradient.mul_(scale)

    def _clusters(self) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]] | None:
        """Clusters of the training queries by their current vectors, where batches are made of them."""
        config, epoch = self.config.negatives, self.position.epoch
        if config.kind != "clustered":
            return None
        rows = self.batches.rows
        vectors = self.world.encode(self.model.queries, self.dataset.queries.take(rows)).cpu().numpy()
        size = cluster_size(config.cluster_start, config.cluster_end, epoch, self.config.training.epochs)
        random = np.random.default_rng([self.config.training.seed, epoch, 1])
        return [rows[part] for part in balanced_clusters(vectors, size, random)]

    def dev_figures(self) -> dict[str, float]:
        """P@1, nDCG@5 and R@10 in percent of the tower alone, exact search, on dev rows thinned to 1,000."""
        dev = self.dataset.dev
        rows = np.flatnonzero(np.diff(dev.relevance.indptr))
        if not len(rows):
            return {}
        rows = rows[:: -(-len(rows) // _DEV_ROWS)]
        labels = self.label_vectors()
        queries = self.world.encode(self.model.queries, dev.items.take(rows))
        excluded = dev.excluded[rows]
        depth = min(10 + int(np.diff(excluded.indptr).max(initial=0)), len(labels))
        best = [(part @ labels.T).topk(depth, dim=1) for part in torch.split(queries, _DEV_BLOCK)]
        found = torch.cat([part.indices for part in best]).cpu().numpy()
        scores = torch.cat([part.values for part in best]).cpu().numpy()
        judged = Judged.of(without(found, scores, excluded, 10)[0], dev.relevance[rows])
        figures = {"P@1": judged.precision(1), "nDCG@5": judged.ndcg(5), "R@10": judged.recall(10)}
        return {name: 100 * value for name, value in figures.items()}

    def label_vectors(self) -> Tensor:
        """Unit vectors of all labels, (labels, dim)."""
        return self.model.label_vectors(self.world.encode(self.model.labels, self.dataset.labels))

    def resume(self, run: Path) -> None:
        """Take over the state of a run. Raises InputError naming the settings in which it differs from this one."""
        check_same_settings(run, self.config)
        tensors, self.position = load_checkpoint(run)
        self.model.load(tensors)
        self.negatives.load(tensors)
        if "order" in tensors:
            self.order = tensors["order"].numpy()
        if self.loss_optimiser is not None:
            self._load_loss(tensors)
            restore_adamw(self.loss_optimiser, [f"loss.{name}" for name, _ in _named(self.objective)], tensors)

    def begin_from(self, earlier: Earlier) -> None:
        """Start with what another run has learned: its towers, the free vectors of its labels, and its loss's own
        parameters where the loss is the same.

        Raises BundleError when its checkpoint does not fit its settings.
        """
        try:
            self.model.begin_from(earlier.tensors, *earlier.same_labels(self.dataset.label_ids))
            if self.loss_optimiser is not None and earlier.loss == self.config.loss.name:
                self._load_loss(earlier.tensors)
        except (KeyError, ValueError, RuntimeError, IndexError) as error:
            reason = first_line(error)
            raise BundleError(
                f"{earlier.run}: its checkpoint does not fit its settings ({reason}); train it again"
            ) from error

    def _load_loss(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in _named(self.objective):
            parameter.data.copy_(tensors[f"loss.{name}"])

    def _save(self, run: Path) -> None:
        """Write the checkpoint, which is also the best one right after the best epoch."""
        if self.world.first:
            self._write(run)
        self.world.wait()  # torchrun ends all processes when one has ended: nobody may leave before this is done

    def _write(self, run: Path) -> None:
        state = self.model.tensors() | self.negatives.tensors()
        if self.order is not None:
            state["order"] = torch.from_numpy(self.order)
        if self.loss_optimiser is not None:
            names = [f"loss.{name}" for name, _ in _named(self.objective)]
            state |= {f"loss.{name}": value.detach() for name, value in _named(self.objective)}
            state |= adamw_tensors(self.loss_optimiser, names)
        save_checkpoint(run, state, self.position)
        curve = self.position.curve
        if curve and self.position.step == 0 and curve[-1] is best_point(curve):
            keep_best(run)

    def _rate_scale(self, batch: Batch) -> float:
        """Linear warm-up, then linear decay to a twentieth, by steps or by time, whichever is further on."""
        step = batch.epoch * self.per_epoch + batch.step
        warm_up = min(1.0, (step + 1) / (self.config.training.warmup_steps + 1))
        gone = step / self.steps
        if self.time_limit is not None:
            gone = max(gone, self.position.seconds / self.time_limit)
        return warm_up * max(_FINAL_RATE, 1 - gone)


def best_point(curve: tuple[Point, ...]) -> Point | None:
    """The first point with the highest nDCG@5 on dev; the last one where dev was not measured; None without points."""
    measured = [point for point in curve if _CHOSEN_BY in point.dev]
    if not measured:
        return curve[-1] if curve else None
    return max(measured, key=lambda point: point.dev[_CHOSEN_BY])


def _kept(labels: int, dropout: float, random: np.random.Generator) -> Tensor:
    """(labels, 1) of 0 and 1: which labels have a part in this step."""
    return torch.from_numpy(random.random((labels, 1), dtype=np.float32) >= dropout)


def _named(objective: Objective) -> list[tuple[str, Tensor]]:
    return [(str(place), value) for place, value in enumerate(objective.loss.parameters())]


def _optimiser_of(objective: Objective, rate: float) -> torch.optim.AdamW | None:
    """For what the loss itself learns; None where that is nothing."""
    learned = objective.loss.parameters()
    return torch.optim.AdamW(learned, lr=rate, weight_decay=0.0) if learned else None
