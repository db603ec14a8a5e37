"""One run in several processes: what each takes of a batch, and how their vectors and gradients come together.

Weights are replicated. Every process draws the same batch and pool, encodes its part of both, gets the vectors of the
others, and takes the loss of its own queries against the whole pool. Gradients are summed; all apply the same update.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from index.errors import InputError, LabelspaceError, first_line
from index.label_vector import unit
from training.config import Config, LossConfig
from training.negatives import Pool
from training.objective import Compared, Mixed, Objective
from training.progress import Progress
from training.tower import Items, Tower

Some = TypeVar("Some", bound=Items)

TIMEOUT = "LABELSPACE_PEER_TIMEOUT"
# A process that ends is noticed at once. This is for one that hangs or is cut off, and has to be longer than the first
# process takes to write a checkpoint, while the others wait.
_TIMEOUT_SECONDS = 600.0
# Gradients of fewer numbers than this travel together.
_SMALL = 1 << 16


class PeerGoneError(LabelspaceError):
    """Another process of the run has ended or does not answer; the run can be resumed."""


class World:
    """The processes of a run. This one is alone: everything is its own, and nothing is sent."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def part(self, count: int, rank: int | None = None) -> slice:
        """What a process (this one for None) takes of `count` things: as many as the others, or one more."""
        place = self.rank if rank is None else rank
        return slice(place * count // self.size, (place + 1) * count // self.size)

    def own(self, items: Some) -> Some:
        """The part of the texts that this process encodes; the first of them where it is left without any, so that
        all processes have gradients of the same weights."""
        return items

    def vectors(self, queries: Tensor, labels: Tensor, counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Those of all processes, in the graph, from those of `own` texts; counts: of all queries and labels."""
        return queries, labels

    def encode(self, tower: Tower, items: Items) -> Tensor:
        """`tower.encode`, each process taking its part; all get all vectors, (n, dim), equal to the last bit."""
        return tower.encode(items)

    def counts(self, count: int) -> list[int]:
        """The number that each process says."""
        return [count]

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows (counts[rank], ...) of all processes, (sum of counts, ...), no graph."""
        return rows

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by the sum over the processes, which all hold tensors of the same shapes."""

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process has been asked to stop, and the seconds that the first has counted."""
        return stop, seconds

    def wait(self) -> None:
        """Until all processes are here."""


class Group(World):
    """One of several processes. All of them must call the same methods in the same order.

    Each raises PeerGoneError when another process has ended or does not answer.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def own(self, items: Some) -> Some:
        part = self.part(len(items))
        return items.take(np.arange(part.start, part.stop) if part.start < part.stop else np.arange(min(1, len(items))))

    def vectors(self, queries: Tensor, labels: Tensor, counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
        own = [self.part(count).stop - self.part(count).start for count in counts]
        sides = queries[: own[0]], labels[: own[1]]
        both: tuple[Tensor, Tensor] = _Vectors.apply(*sides, self, counts)  # type: ignore[no-untyped-call]
        return both

    def encode(self, tower: Tower, items: Items) -> Tensor:
        part = self.part(len(items))
        return self.gather_parts(tower.encode(items.take(np.arange(part.start, part.stop))), len(items))

    def gather_parts(self, rows: Tensor, count: int) -> Tensor:
        """`gather` where each process has its part of `count` rows."""
        parts = [self.part(count, rank) for rank in range(self.size)]
        return self.gather(rows, [part.stop - part.start for part in parts])

    def counts(self, count: int) -> list[int]:
        told = torch.zeros(self.size, dtype=torch.int64)
        told[self.rank] = count
        self.sum([told])
        return [int(number) for number in told]

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        # Not every backend takes parts of different length: all are filled up to the longest.
        sent = rows.new_zeros((max(counts), *rows.shape[1:]))
        sent[: len(rows)] = rows
        got = [torch.empty_like(sent) for _ in counts]
        with _told_if_gone(self):
            distributed.all_gather(got, sent)
        return torch.cat([part[:count] for part, count in zip(got, counts, strict=True)])

    def sum(self, tensors: Sequence[Tensor]) -> None:
        together: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in tensors:
            if tensor.numel() < _SMALL or not tensor.is_contiguous():
                together.setdefault((tensor.device, tensor.dtype), []).append(tensor)
            else:
                with _told_if_gone(self):
                    distributed.all_reduce(tensor)
        for small in together.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in small])
            with _told_if_gone(self):
                distributed.all_reduce(flat)
            totals = torch.split(flat, [tensor.numel() for tensor in small])
            for tensor, total in zip(small, totals, strict=True):
                tensor.copy_(total.view_as(tensor))

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        told = torch.tensor([float(stop), seconds if self.first else 0.0], dtype=torch.float64)
        self.sum([told])
        return bool(told[0] > 0), float(told[1])

    def wait(self) -> None:
        self.sum([torch.zeros(1)])


class _Vectors(torch.autograd.Function):
    """Vectors of all processes from those of this one; a vector's gradient is the sum of what all say of it."""

    @staticmethod
    def forward(
        context: Any, queries: Tensor, labels: Tensor, group: Group, counts: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        context.group, context.counts = group, counts
        return group.gather_parts(queries, counts[0]), group.gather_parts(labels, counts[1])

    @staticmethod
    @once_differentiable
    def backward(context: Any, queries: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, None, None]:
        # One node for both sides: two would meet the others in an order that autograd is free to choose.
        totals = queries.clone(), labels.clone()
        context.group.sum(totals)
        one, other = (total[context.group.part(count)] for total, count in zip(totals, context.counts, strict=True))
        return one, other, None, None


class ShareOfObjective(Objective):
    """The part of a batch's loss that falls to this process's queries; over all processes they add up to the loss.

    It is given, and draws for, the whole batch: a query's partner in a mixture may be another process's.
    """

    def __init__(self, config: LossConfig, dim: int, world: World) -> None:
        super().__init__(config, dim)
        self._world = world

    def _at(self, compared: Compared, mixed: Mixed | None, random: torch.Generator) -> Tensor:
        rows = self._world.part(len(compared.queries))
        own = _rows_of(compared, rows)
        loss = super()._at(own, None, random)
        if mixed is not None:
            partner = mixed.partner[rows]
            theirs = compared.queries[partner.to(compared.queries.device)]
            queries = unit(mixed.share * own.queries + (1 - mixed.share) * theirs)
            both = own.pool.positive, compared.pool.positive[partner.numpy()]
            for (mine, other), share in ((both, mixed.share), (both[::-1], 1 - mixed.share)):
                # As in Objective: the other's labels are neither positive nor negative.
                ignored = other & ~mine
                if own.pool.ignored is not None:
                    ignored |= own.pool.ignored
                pool = replace(own.pool, positive=mine, ignored=ignored)
                mixture = Compared(queries, own.labels, pool, rest=own.rest)
                loss = loss + self.config.mixup * share * super()._at(mixture, None, random)
        return loss * (len(own.queries) / len(compared.queries))


def _rows_of(compared: Compared, rows: slice) -> Compared:
    """The same for some of the queries."""
    pool, own = compared.pool, compared.own
    if own is not None:
        before = np.concatenate([[0], np.cumsum(pool.positive.sum(axis=1))])
        own = own[int(before[rows.start]) : int(before[rows.stop])]
    ignored = None if pool.ignored is None else pool.ignored[rows]
    cut = Pool(pool.labels, pool.positive[rows], ignored, pool.log_weight)
    return Compared(compared.queries[rows], compared.labels, cut, own, compared.rest)


def objective_of(config: LossConfig, dim: int, world: World) -> Objective:
    """What each process computes the loss with."""
    return ShareOfObjective(config, dim, world) if world.size > 1 else Objective(config, dim)


class _Silent(Progress):
    """Progress that nobody is told of: the first process speaks for all."""

    def __init__(self) -> None:
        self._bar = None

    def advance(self, units: int, note: str = "") -> None:
        pass

    def say(self, line: str) -> None:
        pass


def progress_of(world: World, total: int, done: int) -> Progress:
    """The bar or the lines of a run, from the first process only."""
    return Progress("training", total, "steps", done=done) if world.first else _Silent()


def placed(config: Config, world: World) -> Config:
    """The same settings with this process's own GPU, where there are several processes and GPUs are used."""
    wanted = config.tower.kind == "transformer" and config.transformer.device in ("auto", "cuda")
    if world.size == 1 or not wanted or not torch.cuda.is_available():
        return config
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return replace(config, transformer=replace(config.transformer, device=device))


def is_first() -> bool:
    """Whether this is the only process, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun has started, as its environment variables tell; without them, this one alone.

    Raises InputError for an environment that does not fit, LabelspaceError when the others cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield World()
        return
    try:
        timeout = timedelta(seconds=float(os.environ.get(TIMEOUT, _TIMEOUT_SECONDS)))
    except ValueError as error:
        raise InputError(f"{TIMEOUT}: must be a number of seconds, is {os.environ[TIMEOUT]!r}") from error
    # The first step of an optimiser would import this, and what it imports holds on to a process group that is there by
    # then: its threads would outlive the interpreter and abort the process at its end.
    importlib.import_module("torch._dynamo")
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=timeout)
    except ValueError as error:
        raise InputError(f"training in several processes: {first_line(error)}; start them with torchrun") from error
    except RuntimeError as error:
        raise LabelspaceError(f"the other training processes were not reached ({first_line(error)})") from error
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size())
    except PeerGoneError:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to the others: they end by themselves
        raise
    finally:
        distributed.destroy_process_group()


@contextmanager
def _told_if_gone(group: Group) -> Iterator[None]:
    """What torch raises when another process has ended, as an error of ours."""
    try:
        yield
    except RuntimeError as error:
        # The frames hold on to torch's process group, too: see `joined`.
        traceback.clear_frames(error.__traceback__)
        others = [str(rank) for rank in range(group.size) if rank != group.rank]
        which = f"rank {others[0]}" if len(others) == 1 else f"one of {group.size}, seen by rank {group.rank}"
        raise PeerGoneError(f"a training process has gone ({which})") from error
