"""Packed strings and lists against Python's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.packed import Lists, PackedStrings, spans

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(TEXT, max_size=30, unique=True), TEXT)
def test_finds_each_string_at_its_row_and_no_other(strings: list[str], other: str) -> None:
    packed = PackedStrings.pack(strings)
    order = packed.order()
    assert list(packed) == strings
    assert [packed.find(text, order) for text in strings] == list(range(len(strings)))
    assert packed.find(other, order) == (strings.index(other) if other in strings else None)


@given(st.lists(st.lists(st.integers(-9, 2**31 - 1), max_size=5), max_size=12))
def test_lists_come_back(lists: list[list[int]]) -> None:
    packed = Lists.pack(lists)
    assert [packed[row].tolist() for row in range(len(packed))] == lists


def test_both_survive_the_disk(tmp_path: Path) -> None:
    PackedStrings.pack(["größe", "", "日本"]).save(tmp_path, "names")
    Lists.pack([[1, 2], [], [3]]).save(tmp_path, "lists")
    assert list(PackedStrings.open(tmp_path, "names")) == ["größe", "", "日本"]
    assert [row.tolist() for row in map(Lists.open(tmp_path, "lists").__getitem__, range(3))] == [[1, 2], [], [3]]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=10))
def test_spans_are_ranges_one_after_another(pairs: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in pairs], dtype=np.int64)
    lengths = np.array([length for _, length in pairs], dtype=np.int64)
    wanted = [value for start, length in pairs for value in range(start, start + length)]
    assert spans(starts, lengths).tolist() == wanted
