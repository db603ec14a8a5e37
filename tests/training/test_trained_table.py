"""The table in training: several calls, several processes and one stacked call are the same step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from index.bags import Bags, stack_bags
from index.features import FeatureSpec, Featurizer
from index.field_spec import FieldSpec
from training.distributed import World
from training.trained_table import TrainedTable
from training.unified_embedding import UnifiedEmbedding

SPEC = FeatureSpec(rows=64, fields=(FieldSpec("a"),))


def table() -> TrainedTable:
    embedding = UnifiedEmbedding(64, 8, torch.Generator().manual_seed(1))
    embedding.gates.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(2))
    return TrainedTable(embedding, 0.1, 0.05)


def bags(*values: Sequence[str]) -> Bags:
    return Featurizer(SPEC)([""] * len(values), [{"a": list(value)} for value in values])


ONE, OTHER = bags(["x", "y"], [], ["z"]), bags(["y"], ["q", "x"])


def backward(made: TrainedTable, items: Bags, direction: Tensor) -> None:
    (made.pooled(items) * direction).sum().backward()  # type: ignore[no-untyped-call]


class _Two(World):
    """A world of this process and another one, of which it is known what it sends."""

    def __init__(self, theirs: TrainedTable, *, first: bool) -> None:
        theirs.gradients()  # merges
        rows, gates = (leaf.grad for leaf in theirs._touched[0].leaves)
        assert rows is not None and gates is not None
        self._sent = [theirs._touched[0].where.clone(), torch.cat([rows, gates[:, None]], dim=1)]
        self._first = first

    def counts(self, count: int) -> list[int]:
        both = [count, len(self._sent[0])]
        return both if self._first else both[::-1]

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        both = [rows, self._sent.pop(0)]
        return torch.cat(both if self._first else both[::-1])


def test_what_two_processes_touch_is_summed_row_by_row() -> None:
    direction = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32))
    whole, mine, theirs = table(), table(), table()
    backward(whole, stack_bags(ONE, OTHER), direction)
    backward(mine, ONE, direction[:3])
    backward(theirs, OTHER, direction[3:])
    worlds = _Two(theirs, first=True), _Two(mine, first=False)
    for made, world in zip((mine, theirs), worlds, strict=True):
        made.sum_gradients(world)
    for made in (whole, mine, theirs):
        made.update(0.7)
        assert made.gradients() == []
    for name, value in whole.tensors("p.").items():
        assert name.split(".")[1] == "p"
        for made in (mine, theirs):
            assert torch.allclose(value, made.tensors("p.")[name], atol=1e-6), name


def test_a_process_that_touches_nothing_takes_part() -> None:
    theirs, mine = table(), table()
    backward(theirs, OTHER, torch.ones(2, 8))
    world = _Two(theirs, first=True)
    mine.sum_gradients(world)
    for made in (theirs, mine):
        made.update(1.0)
    assert torch.equal(mine.embedding.table, theirs.embedding.table)
    assert not torch.equal(mine.embedding.table, table().embedding.table)


def test_what_tensors_gives_load_takes() -> None:
    one, other = table(), table()
    backward(one, ONE, torch.ones(3, 8))
    one.update(1.0)
    other.load({name: value.clone() for name, value in one.tensors("p.").items()}, "p.")
    for made in (one, other):
        backward(made, OTHER, torch.ones(2, 8))
        made.update(1.0)
    assert all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
    with torch.no_grad():
        one.pooled(ONE)
    assert one.gradients() == []
