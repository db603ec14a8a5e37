"""The loss of one batch: scores against the pool and the rest, at every nested width, with mixed queries beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from index.label_vector import unit
from training.config import LossConfig
from training.losses import NamedLoss, make_loss
from training.negatives import Pool
from training.streamed import streamed_logsumexp

# Scores against the rest are held whole up to so many (128 MB); beyond, they are streamed and computed twice.
_HELD_SCORES = 1 << 25
_CHUNK = 8192
# Losses that know their negatives by the logsumexp of their scores alone: one column can stand for any number of them.
_BY_LOGSUMEXP = ("decoupled_softmax", "softmax", "softmax_one_positive", "softmax_without_positives")


@dataclass(frozen=True, slots=True)
class Compared:
    """What the loss of a batch is computed from; all vectors are unit vectors.

    queries: (b, dim); labels: (p, dim), those of `pool`. own: (n, dim) or None: label vectors to use for the n positive
    pairs (in the order of pool.positive.nonzero()) instead of their columns in `labels`. rest: vectors (labels, dim)
    without gradients and what is added to their scores, for labels outside the pool.
    """

    queries: Tensor
    labels: Tensor
    pool: Pool
    own: Tensor | None = None
    rest: tuple[Tensor, Tensor] | None = None


class Objective:
    """The configured loss. Nested widths are trained at once (Matryoshka, NeurIPS 2022): the mean over all widths."""

    def __init__(self, config: LossConfig, dim: int) -> None:
        self.config = config
        self.loss: NamedLoss = make_loss(config.name, k=config.k, alpha=config.alpha, temperature=config.temperature)
        self.widths = [*(width for width in config.prefixes if width < dim), dim]

    def __call__(self, compared: Compared, random: np.random.Generator) -> Tensor:
        """A scalar."""
        torch_random = torch.Generator(device=compared.queries.device)
        torch_random.manual_seed(int(random.integers(1 << 62)))
        mixed = Mixed.draw(len(compared.queries), self.config, random) if self.config.mixup else None
        losses = [self._at(_cut(compared, width), mixed, torch_random) for width in self.widths]
        return torch.stack(losses).mean()

    def _at(self, compared: Compared, mixed: Mixed | None, random: torch.Generator) -> Tensor:
        positive = torch.from_numpy(compared.pool.positive).to(compared.queries.device)
        scores = self._scores(compared, compared.queries, positive, own=compared.own)
        loss = self._loss(scores, positive, random)
        if mixed is None:
            return loss
        # Metrix (ICLR 2022) on query vectors: a mixed query has the labels of both partners, each by its share. With
        # one partner's labels as positives, the other's are left out of the negatives: the decoupled treatment.
        partner = mixed.partner.to(compared.queries.device)
        queries = unit(mixed.share * compared.queries + (1 - mixed.share) * compared.queries[partner])
        scores = self._scores(compared, queries, positive | positive[partner])
        theirs = positive[partner]
        for mine, other, share in ((positive, theirs, mixed.share), (theirs, positive, 1 - mixed.share)):
            masked = scores.masked_fill(_widened(other & ~mine, scores), -torch.inf)
            loss = loss + self.config.mixup * share * self._loss(masked, mine, random)
        return loss

    def _loss(self, scores: Tensor, positive: Tensor, random: torch.Generator) -> Tensor:
        return self.loss(scores, _widened(positive, scores), random)

    def _scores(self, compared: Compared, queries: Tensor, positive: Tensor, own: Tensor | None = None) -> Tensor:
        """(b, p), and columns for the rest: all of them, or one that stands for them."""
        scale = 1 / self.config.temperature
        scores = queries @ compared.labels.T * scale
        if own is not None:
            rows, columns = positive.nonzero(as_tuple=True)
            scores = scores.index_put((rows, columns), (queries[rows] * own).sum(dim=1) * scale)
        pool = compared.pool
        if pool.log_weight is not None:
            weight = torch.from_numpy(pool.log_weight).to(scores)
            scores = torch.where(positive, scores, scores + weight)
        if pool.ignored is not None:
            scores = scores.masked_fill(torch.from_numpy(pool.ignored).to(scores.device), -torch.inf)
        if compared.rest is None:
            return scores
        return torch.cat([scores, self._rest(queries, *compared.rest)], dim=1)

    def _rest(self, queries: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
        scale = 1 / self.config.temperature
        if len(queries) * len(labels) <= _HELD_SCORES or self.config.name not in _BY_LOGSUMEXP:
            scores = queries @ labels.T * scale + shift
            return scores.logsumexp(dim=1, keepdim=True) if self.config.name in _BY_LOGSUMEXP else scores
        none = torch.empty(0, dtype=torch.int64, device=queries.device)
        return streamed_logsumexp(queries, labels, (none, none), scale, shift, _CHUNK)[:, None]


@dataclass(frozen=True, slots=True)
class Mixed:
    """partner: (b,) int64, each query's partner; share: its own share, one λ ~ Beta(α, α) for the batch."""

    partner: Tensor
    share: float

    @classmethod
    def draw(cls, queries: int, config: LossConfig, random: np.random.Generator) -> Mixed:
        share = float(random.beta(config.mixup_alpha, config.mixup_alpha))
        return cls(torch.from_numpy(random.permutation(queries)), share)


def _cut(compared: Compared, width: int) -> Compared:
    """The leading `width` dimensions, at unit length."""
    if width == compared.queries.shape[1]:
        return compared
    rest = None if compared.rest is None else (unit(compared.rest[0][:, :width]), compared.rest[1])
    own = None if compared.own is None else unit(compared.own[:, :width])
    return Compared(unit(compared.queries[:, :width]), unit(compared.labels[:, :width]), compared.pool, own, rest)


def _widened(mask: Tensor, like: Tensor) -> Tensor:
    """A mask over the pool (b, p) with False for the columns of the rest."""
    more = like.shape[1] - mask.shape[1]
    return functional.pad(mask, (0, more)) if more else mask
