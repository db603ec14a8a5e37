"""The label table and its live view against dictionaries, through any changes."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.errors import InputError
from index.facets import fields_text
from index.label_filter import LabelFilter
from index.labels import Label, LabelTable, LiveLabels
from index.packed import PackedStrings

LANGS: list[dict[str, Any] | None] = [
    {"lang": "de"},
    None,
    {"lang": ["de", "en"], "year": 1},
    {"year": "1"},
    {"year": True},
]


def table_of(ids: list[str], fields: list[dict[str, Any] | None] | None = None) -> LabelTable:
    packed = None if fields is None else PackedStrings.pack(fields_text(one) for one in fields)
    return LabelTable.pack(ids, [f"text of {name}" for name in ids], packed)


@given(st.lists(st.text(max_size=4), max_size=40, unique=True), st.lists(st.text(max_size=4), max_size=40))
def test_many_ids_are_found_as_each_alone(ids: list[str], asked: list[str]) -> None:
    table = table_of(ids)
    wanted = {name: ids.index(name) for name in asked if name in ids}
    assert table.find_all(asked) == wanted
    assert table.find_all(iter(ids)) == {name: place for place, name in enumerate(ids)}
    assert table.find_all(["\udcff"]) == table.find_all([]) == {}


@pytest.mark.parametrize("with_fields", [True, False])
def test_a_table_is_saved_and_opened_with_its_fields(tmp_path: Path, with_fields: bool) -> None:
    ids = ["b", "a", "größe", "日本", "/x y"]
    table_of(ids, LANGS if with_fields else None).save(tmp_path)
    assert any(path.name.startswith(("labels.fields", "facets")) for path in tmp_path.iterdir()) == with_fields
    opened = LabelTable.open(tmp_path)
    assert len(opened) == 5
    assert [opened[row] for row in range(5)] == [
        Label(name, f"text of {name}", fields if with_fields else None) for name, fields in zip(ids, LANGS, strict=True)
    ]
    german = opened.matching(LabelFilter.parse({"lang": "de"}))
    assert german.tolist() == ([0, 2] if with_fields else [])
    assert opened.matching(LabelFilter.parse({})).tolist() == [0, 1, 2, 3, 4]


def matches(fields: Any, asked: dict[str, Any]) -> bool:
    for name, wanted in asked.items():
        own = (fields or {}).get(name)
        has = own if isinstance(own, list) else [own]
        values = wanted if isinstance(wanted, list) else [wanted]
        if not any(type(one) is type(other) and one == other for one in has for other in values):
            return False
    return True


ASKED: list[dict[str, Any]] = [
    {}, {"lang": "de"}, {"lang": ["de", "fr"]}, {"lang": "de", "year": 1}, {"year": "1"}, {"year": [True, 1]},
    {"lang": "xx"}, {"gone": 1}, {"lang": []}, {"lang": "de", "gone": 1},
]  # fmt: skip


def assert_is(labels: LiveLabels, live: dict[int, Label], rows: int) -> None:
    assert dict(labels.after(None)) == live
    assert (len(labels), labels.rows) == (len(live), rows)
    every = np.arange(rows)
    assert labels.gone(every).tolist() == [row not in live for row in range(rows)]
    assert sorted(labels.removed) == [row for row in range(rows) if row not in live]
    for row, label in live.items():
        assert labels.find(label.id) == row and labels[row] == label
    for asked in ASKED:
        wanted = [row for row, label in sorted(live.items()) if matches(label.fields, asked)]
        found = labels.matching(LabelFilter.parse(asked))
        assert found.tolist() == wanted and found.dtype == np.int64
        assert labels.matching(LabelFilter.parse(asked)) is found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [0, 3, 40])
def test_any_changes_come_to_what_dictionaries_say(seed: int, count: int) -> None:
    chooser = random.Random(seed)
    ids = [f"b{number}" for number in range(count)]
    fields = [chooser.choice(LANGS) for _ in ids]
    labels = LiveLabels(table_of(ids, fields if any(fields) else None))
    live = {row: Label(name, f"text of {name}", said) for row, (name, said) in enumerate(zip(ids, fields, strict=True))}
    rows, seen = count, []
    for _ in range(12):
        block: list[LabelChange] = []
        wanted: list[tuple[int | None, ...]] = []
        for _ in range(chooser.randrange(6)):
            names = [chooser.choice([*ids[:8], *(f"n{number}" for number in range(4))]) for _ in range(3)]
            place = {label.id: row for row, label in live.items()}
            met = [place.get(name) for name in names]
            kind = chooser.randrange(5)
            if kind < 2:
                row = rows if met[0] is None else met[0]
                rows = max(rows, row + 1)
                live[row] = Label(names[0], chooser.choice("xyz"), chooser.choice(LANGS))
                block.append(PutLabel(names[0], live[row].text, fields=live[row].fields))
                wanted.append((row,))
            elif kind == 2:
                block.append(RemoveLabel(names[0]))
                wanted.append((met[0],))
                if met[0] is not None:
                    del live[met[0]]
            elif kind == 3:
                block.append(Feedback("x", (names[0],), tuple(names[1:])))
                wanted.append(tuple(met))
            else:
                label = chooser.choice([None, names[0]])
                block.append(RemoveExample("x", label))
                wanted.append(() if label is None else (met[0],))
        labels, found = labels.apply(block)
        assert found == wanted
        assert_is(labels, live, rows)
        seen.append((labels, dict(live), rows))
    for old, then, count_then in seen:
        assert_is(old, then, count_then)


def test_an_id_that_comes_back_has_a_new_row_and_the_old_postings_do_not_count() -> None:
    labels = LiveLabels(table_of(["a", "b"], [{"lang": "de"}, {"lang": "de"}]))
    labels, rows = labels.apply([RemoveLabel("a"), PutLabel("a", "x", fields={"lang": "en"}), PutLabel("b", "y")])
    assert rows == [(0,), (2,), (1,)]
    assert labels.matching(LabelFilter.parse({"lang": "de"})).tolist() == []
    assert labels.matching(LabelFilter.parse({"lang": "en"})).tolist() == [2]
    with pytest.raises(InputError, match="cursor 'c': names no label"):
        labels.after("c")


def test_filters_over_many_labels_are_quick_and_changes_cost_what_they_change() -> None:
    count = 200_000
    data = PackedStrings.pack(f'{{"lang":"l{row % 3}","one":{row % 1000}}}' for row in range(count))
    labels = LiveLabels(LabelTable.pack([f"id{row:07}" for row in range(count)], [""] * count, data))
    broad, narrow = LabelFilter.parse({"lang": ["l0", "l1"]}), LabelFilter.parse({"one": 7, "lang": "l1"})
    assert len(labels.matching(broad)) == 133_334
    wanted = [row for row in range(count) if row % 1000 == 7 and row % 3 == 1]
    assert labels.matching(narrow).tolist() == wanted
    labels, _ = labels.apply([PutLabel(f"id{row:07}", "x", fields={"one": 7, "lang": "l1"}) for row in range(5000)])
    begin = time.process_time()
    labels.matching(narrow)
    labels.matching(broad)
    assert time.process_time() - begin < 0.1
    begin = time.process_time()
    for number in range(100):
        labels, _ = labels.apply([PutLabel(f"new{number}", "x", fields={"one": 7})])
    assert (time.process_time() - begin) / 100 < 0.01
