"""Added examples against dictionaries: who has which, and sums that do not depend on what was there meanwhile."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from index.added_examples import AddedExamples, ExampleDraft
from index.carried import Carried
from index.grown_rows import GrownRows

DIM = 8


def vector_of(key: str) -> NDArray[np.float32]:
    """One of its own for each key; none for "silent"."""
    if key == "silent":
        return np.zeros(DIM, dtype=np.float32)
    vector = np.random.default_rng(list(key.encode())).standard_normal(DIM).astype(np.float32)
    length: np.float32 = np.linalg.norm(vector)
    return vector / length


def finished(draft: ExampleDraft) -> AddedExamples:
    return draft.finish(np.array([vector_of(key) for key in draft.new.values()], dtype=np.float32).reshape(-1, DIM))


def empty() -> AddedExamples:
    return AddedExamples.of(Carried.none(DIM).examples)


def assert_is(examples: AddedExamples, said: Mapping[str, Mapping[int, bool]]) -> None:
    said = {key: own for key, own in said.items() if own}
    assert {key: dict(examples.pairs[number]) for key, number in examples.numbers.items()} == said
    assert {examples.keys[number]: number for number in examples.keys} == dict(examples.numbers)
    assert sorted(examples.pairs) == sorted(examples.keys)
    for key, number in examples.numbers.items():
        assert np.array_equal(examples.vectors.values[number], vector_of(key))
    rows = list(range(6))
    sums, counts = examples.sums(rows)
    for row in rows:
        own = {key: said[key][row] for key in said if row in said[key]}
        assert {examples.keys[number]: right for number, right in examples.of_label.get(row, {}).items()} == own
        right = [vector_of(key).astype(np.float64) for key in own if own[key] and key != "silent"]
        assert counts[row, 0] == len(right)
        assert np.abs(sums[row] - np.sum(right, axis=0) if right else sums[row]).max() < 1e-8
    assert set(examples.of_label) <= set(rows) and all(examples.of_label.values())


@pytest.mark.parametrize("seed", range(5))
def test_any_series_of_blocks_comes_to_what_dictionaries_say(seed: int) -> None:
    chooser = random.Random(seed)
    examples, said = empty(), {key: dict[int, bool]() for key in ("a", "b", "größe", "silent", "c")}
    views = []
    for _ in range(15):
        draft = ExampleDraft(examples)
        right_before = {row: {key for key in said if said[key].get(row)} for row in range(6)}
        there = {key for key in said if said[key]}
        for _ in range(chooser.randrange(8)):
            key, row = chooser.choice(list(said)), chooser.randrange(6)
            kind = chooser.randrange(5)
            if kind < 3:
                draft.tell(key, row, kind < 2)
                said[key][row] = kind < 2
            elif kind == 3:
                every = chooser.random() < 0.3
                draft.forget(key, None if every else row)
                said[key] = {} if every else {own: right for own, right in said[key].items() if own != row}
            else:
                draft.clear(row)
                for own in said.values():
                    own.pop(row, None)
        now = {row: {key for key in said if said[key].get(row)} for row in range(6)}
        assert {row for row in range(6) if right_before[row] != now[row]} <= draft.changed
        assert {examples.keys[number] for number in draft.lost} >= there - {key for key in said if said[key]}
        examples = finished(draft)
        assert_is(examples, said)
        views.append((examples, {key: dict(own) for key, own in said.items()}))
        assert_is(AddedExamples.of(examples.carried()), said)
    for view, then in views:
        assert_is(view, then)


def test_sums_are_the_same_bits_in_any_order_and_whatever_came_and_went() -> None:
    chooser = random.Random(0)
    keys = [f"key {number}" for number in range(8_000)]
    draft = ExampleDraft(empty())
    for key in keys:
        draft.tell(key, 3, True)
    one = finished(draft)
    chooser.shuffle(keys)
    other = empty()
    for start in range(0, len(keys), 3000):
        draft = ExampleDraft(other)
        for key in (*keys[start : start + 3000], *(f"more {number}" for number in range(start, start + 5))):
            draft.tell(key, 3, True)
        other = finished(draft)
    draft = ExampleDraft(other)
    for key in list(other.numbers):
        if key.startswith("more"):
            draft.forget(key, 3)
    other = finished(draft)
    (mine, mine_counted), (theirs, theirs_counted) = one.sums([3, 4]), other.sums([3, 4])
    assert np.array_equal(mine, theirs) and mine_counted.tolist() == theirs_counted.tolist() == [[8_000], [0]]
    exact = np.sum([vector_of(key).astype(np.float64) for key in keys], axis=0)
    assert np.abs(mine[0] - exact).max() < 1e-5
    assert not mine[1].any()


def test_rows_grow_and_older_views_stay() -> None:
    first = GrownRows.of(np.ones((1, 2), dtype=np.float32))
    second = first.append(np.full((70, 2), 2, dtype=np.float32))
    third = second.append(np.full((2, 2), 3, dtype=np.float32))
    fork = second.append(np.full((3, 2), 4, dtype=np.float32))
    assert [len(view) for view in (first, second, third, fork)] == [1, 71, 73, 74]
    assert first.values.tolist() == [[1, 1]]
    assert third.values[71:].tolist() == [[3, 3]] * 2 and fork.values[71:].tolist() == [[4, 4]] * 3
    assert np.array_equal(third.values[:71], second.values) and np.array_equal(fork.values[:71], second.values)
    assert second.append(np.zeros((0, 2), dtype=np.float32)) is second
    # The newest view grows where it is.
    assert third.append(np.ones((1, 2), dtype=np.float32)).values.base is third.values.base
