"""What a bundle carries of changes: read as it was written, and renumbered."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.carried import Carried, CarriedExamples, CarriedLabels, example_key, renumbered
from index.packed import Lists, PackedStrings


def carried() -> Carried:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    return Carried(
        CarriedLabels(np.array([1, 4, 7]), np.array([True, False, True]), vectors, vectors + 10),
        CarriedExamples(
            PackedStrings.pack(["a", "日本", ""]), vectors, Lists.pack([[1], [4, 7], []]), Lists.pack([[], [1], [4]])
        ),
    )


def test_what_is_carried_comes_back_as_it_was(tmp_path: Path) -> None:
    was = carried()
    was.save(tmp_path)
    found = Carried.open(tmp_path, 2)
    for name in ("rows", "put", "trained", "given"):
        assert np.array_equal(getattr(found.labels, name), getattr(was.labels, name))
    assert list(found.examples.keys) == ["a", "日本", ""]
    assert np.array_equal(found.examples.vectors, was.examples.vectors)
    for name in ("right", "wrong"):
        assert [getattr(found.examples, name)[at].tolist() for at in range(3)] == [
            getattr(was.examples, name)[at].tolist() for at in range(3)
        ]
    (tmp_path / "none").mkdir()
    Carried.none(2).save(tmp_path / "none")
    assert not list((tmp_path / "none").iterdir())
    assert len(Carried.open(tmp_path / "none", 2).examples) == 0


def test_what_is_carried_is_renumbered_and_loses_rows_that_are_gone() -> None:
    places = np.array([0, 1, -1, -1, -1, 2, 3, 4])
    found = carried().renumbered(places)
    assert found.labels.rows.tolist() == [1, 4]
    assert found.labels.trained.tolist() == [[0, 1], [4, 5]]
    assert found.labels.put.tolist() == [True, True]
    assert [found.examples.right[at].tolist() for at in range(3)] == [[1], [4], []]
    assert [found.examples.wrong[at].tolist() for at in range(3)] == [[], [1], []]
    assert len(renumbered(Lists.pack([]), places)) == 0


def test_an_example_is_known_by_its_text_and_fields() -> None:
    assert example_key("a", None) == example_key("a", {})
    assert example_key("a", {"b": 1, "c": [2]}) == example_key("a", {"c": [2], "b": 1})
    some = [
        example_key("a", None),
        example_key("", {"a": "a"}),
        example_key("a", {"a": 1}),
        example_key("a", {"a": "1"}),
    ]
    assert len(set(some)) == 4
