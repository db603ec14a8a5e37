"""The unified tower in float64 NumPy, bag by bag and history by history; and bags made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from index.bags import Bags, Sequences, offsets_of
from training.unified_tower import UnifiedTower

Array = NDArray[np.float64]


def randomise(made: UnifiedTower, seed: int = 9) -> UnifiedTower:
    """Weights as in the middle of a training: at its start the residual part, the gates and more are zero."""
    generator = torch.Generator().manual_seed(seed)
    made.embedding.gates.uniform_(-0.5, 0.5, generator=generator)
    made.attention.normal_(generator=generator)
    for parameter in made.dense.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def bags_of(
    texts: Sequence[Sequence[dict[int, float]]], *histories: Sequence[Sequence[int]], slots: int | None = None
) -> Bags:
    """texts: for each slot the weight of each row. histories: for each field those of all texts."""
    each = [slot for text in texts for slot in text]
    links = [(row, slot[row]) for slot in each for row in sorted(slot)]
    return Bags(
        offsets_of(np.array([len(slot) for slot in each], dtype=np.int64)),
        np.array([row for row, _ in links], dtype=np.int32),
        np.array([weight for _, weight in links], dtype=np.float32),
        slots or len(texts[0]),
        tuple(sequence_of(field) for field in histories),
    )


def sequence_of(histories: Sequence[Sequence[int]]) -> Sequences:
    lengths = np.array([len(one) for one in histories], dtype=np.int64)
    return Sequences(offsets_of(lengths), np.array([row for one in histories for row in one], dtype=np.int32))


def random_bags(rows: int, slots: int, histories: int, seed: int = 0) -> Bags:
    """Of eight texts: some with empty slots, one with nothing but these, one with a single value; histories of no
    value, one, few, and 10,000 of them."""
    random = np.random.default_rng(seed)

    def bag(size: int) -> dict[int, float]:
        return {int(row): float(1 + random.random()) for row in random.integers(0, rows, size)}

    sizes = random.integers(0, 9, (8, slots))
    sizes[2] = 0
    sizes[5] = 0
    sizes[5, slots - 1] = 1
    texts = [[bag(size) for size in row] for row in sizes]
    lengths = (0, 1, 0, 4, 30, 10_000, 5, 2)
    fields = [
        [random.integers(0, rows, length).tolist() for length in np.roll(lengths, field)] for field in range(histories)
    ]
    return bags_of(texts, *fields, slots=slots)


def gated(made: UnifiedTower) -> Array:
    return np.asarray(made.embedding.table.double().numpy() * np.exp(made.embedding.gates.double().numpy())[:, None])


def history_sum(rows: Sequence[int], table: Array, attention: Array, learned: Array, slope: float, top: int) -> Array:
    """Scores of all values, softmax over the best, the sum of their rows."""
    if not len(rows):
        return np.zeros(table.shape[1])
    query = np.mean([attention[row] for row in list(rows)[-5:]], axis=0) + learned
    scored = []
    for age, row in enumerate(reversed(list(rows))):
        scored.append((float(attention[row] @ query) / math.sqrt(8) - slope * math.log(1 + age), row))
    best = sorted(scored, reverse=True)[:top]
    shares = np.array([math.exp(score - best[0][0]) for score, _ in best])
    return np.asarray(sum(share * table[row] for share, (_, row) in zip(shares / shares.sum(), best, strict=True)))


def by_numpy(made: UnifiedTower, bags: Bags) -> Array:
    """Unit vectors (n, dim)."""
    weight = {name: value.detach().double().numpy() for name, value in made.dense.state_dict().items()}
    table, attention = gated(made), made.attention.double().numpy()
    slots, found = bags.slots, []
    for text in range(len(bags)):
        pooled = []
        for bag in range(text * slots, (text + 1) * slots):
            links = slice(bags.offsets[bag], bags.offsets[bag + 1])
            weights = bags.weights[links].astype(np.float64)
            total = weights @ table[bags.rows[links]]
            if made.spec.separate and len(weights):
                total = total / POOLED(weights)
            pooled.append(total)
        tops = [field.top for field in made.spec.fields if field.kind == "history"]
        for field, (sequence, top) in enumerate(zip(bags.sequences, tops, strict=True)):
            rows = sequence.rows[sequence.offsets[text] : sequence.offsets[text + 1]].tolist()
            learned, slope = weight[f"histories.{field}.query"], float(weight[f"histories.{field}.slope"])
            pooled.append(history_sum(rows, table, attention, learned, slope, top))
        if made.spec.separate:
            read = weight["reader.linear.weight"] @ np.concatenate(pooled) + weight["reader.linear.bias"]
        else:
            shares = [1.0, *weight.get("shares", np.zeros(0))]
            read = np.asarray(sum(share * part for share, part in zip(shares, pooled, strict=True)))
        found.append(_head(read, weight, made))
    return np.array(found)


def POOLED(weights: Array) -> float:  # noqa: N802
    return float(weights.sum())


def _head(pooled: Array, weight: dict[str, Array], made: UnifiedTower) -> Array:
    length = np.linalg.norm(pooled)
    vector = pooled / length if length else pooled
    if not made.dense.head.hidden:
        return np.asarray(vector)
    vector = vector * made.dim**0.5
    normed = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
    normed = normed * weight["head.norm.weight"] + weight["head.norm.bias"]
    wide = weight["head.widen.weight"] @ normed + weight["head.widen.bias"]
    active = wide * np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in wide])
    vector = vector + weight["head.narrow.weight"] @ active + weight["head.narrow.bias"]
    return np.asarray(vector / np.linalg.norm(vector))
