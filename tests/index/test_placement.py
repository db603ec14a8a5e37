"""Rows of values against plain integers, and how evenly each kind of table spreads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_support import mix, rows_of
from index.feature_spec import FeatureSpec
from index.field_spec import FieldSpec
from index.placement import Placement

SPEC = FeatureSpec(rows=1000, ngrams=(3,), fields=(FieldSpec("h", "history"), FieldSpec("v", probes=3)))
PARTS = (0, 400, 401, 403, 500, 1000)


def place(spec: FeatureSpec, namespace: int, values: np.ndarray) -> list[list[int]]:
    """The rows of each value, each as if in a text of its own."""
    texts = np.arange(len(values))
    cells = Placement(spec, None, None)(texts, np.full(len(values), namespace), values).cells
    slots = len(spec.slot_names)
    found: list[list[int]] = [[] for _ in values]
    for cell in np.sort(cells).tolist():
        found[cell // (slots * spec.rows)].append(cell % spec.rows)
    return found


@pytest.mark.parametrize("table", ["shared", "split", "quotient", "quotient_split"])
@pytest.mark.parametrize("separate", [False, True])
def test_rows_are_those_of_plain_integers(table: str, separate: bool) -> None:
    spec = replace(SPEC, table=table, separate=separate, parts=PARTS if table.endswith("split") else ())
    values = np.random.default_rng(0).integers(0, 1 << 64, 200, dtype=np.uint64)
    for number, name in enumerate(spec.namespaces):
        if name == "field:h":
            continue
        wanted = [rows_of(spec, name, value) for value in values.tolist()]
        found = place(spec, number, values)
        assert found == (wanted if separate else [sorted(rows) for rows in wanted])
        if table.endswith("split"):
            assert all(PARTS[number] <= row < PARTS[number + 1] for rows in found for row in rows)
    sequence, _ = Placement(spec, None, None).sequences(1, 3, np.zeros(200, dtype=np.int64), values)
    assert sequence.rows.tolist() == [rows_of(spec, "field:h", value)[0] for value in values.tolist()]


def test_quotient_and_remainder_tell_values_apart_that_one_row_would_not() -> None:
    spec = replace(SPEC, rows=2000, table="quotient")
    values = np.arange(1000, dtype=np.uint64)
    found = [tuple(rows) for rows in place(spec, 0, values)]
    assert len(set(found)) > 990
    assert all(first < 1000 <= second < 2000 for first, second in found)
    number = mix(7) % 1000**2
    assert found[7] == (number // 1000, 1000 + number % 1000)
    smallest = replace(SPEC, rows=2, table="quotient")
    assert set(map(tuple, place(smallest, 0, values))) == {(0, 1)}
    odd = replace(SPEC, rows=3, table="quotient")
    assert set(map(tuple, place(odd, 0, values))) == {(0, 1)}


def test_probes_are_spread_evenly_and_apart() -> None:
    spec = FeatureSpec(rows=64, ngrams=(), pairs=False, probes=4)
    found = np.array(place(replace(spec, separate=True), 0, np.arange(6400, dtype=np.uint64)))
    # Chi-square with 63 degrees of freedom: a fair spread exceeds 110 about once in 4,000 tables.
    for rows in found.T:
        counts = np.bincount(rows, minlength=64)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 110
    # Two probes of a value are one row by chance only: once in 64.
    assert abs((found[:, 0] == found[:, 1]).mean() - 1 / 64) < 0.006


def test_values_of_another_text_have_cells_of_their_own() -> None:
    spec = replace(SPEC, separate=True, rows=(1 << 31) - 1)
    texts, values = np.array([0, 511]), np.array([5, 5], dtype=np.uint64)
    one, other = Placement(spec, None, None)(texts, np.array([0, 0]), values).cells.tolist()
    assert other - one == 511 * len(spec.slot_names) * spec.rows
