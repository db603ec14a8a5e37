"""What a factory string may say, and what auto tries."""

from __future__ import annotations

import pytest

from index.errors import InputError
from index.index_choice import cells, choices, parse_spec
from index.index_size import index_bytes


@pytest.mark.parametrize("spec", ["", "IVF,SQ8", "SQ9", "Flat;", "IVF64,PQ7x4fs", "日本語", "Flat,Flat,Flat"])
def test_what_faiss_cannot_read_is_named(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_spec(spec, 16)
    message = str(caught.value)
    assert message.startswith(f"index {spec!r}: ")
    assert "\n" not in message
    assert "/project/" not in message


@pytest.mark.parametrize("spec", ["NSG32,Flat", "PQ8x4fs", "IDMap,Flat", "IDMap2,Flat", "RaBitQfs"])
def test_what_cannot_leave_rows_out_is_named(spec: str) -> None:
    with pytest.raises(InputError, match=f"index '{spec}': cannot be searched without the labels"):
        parse_spec(spec, 16)


@pytest.mark.parametrize(
    "spec", ["Flat", "SQ8", "HNSW32,SQ8", "IVF64_HNSW8,PQ8x4fs", "PCA8,IVF8,SQ8", "SQ4,RFlat", "HNSW"]
)
def test_what_can_be_searched_is_made(spec: str) -> None:
    assert parse_spec(spec, 16).d == 16


@pytest.mark.parametrize(("count", "lists"), [(0, 1), (1, 1), (77, 1), (78, 2), (20_000, 512), (10**6, 4096)])
def test_lists_are_a_power_of_two_near_four_roots_with_enough_in_each(count: int, lists: int) -> None:
    assert cells(count) == lists


def test_few_are_exact_many_a_graph_and_very_many_lists() -> None:
    assert choices(0, 256, rescore=True) == choices(19_999, 256, rescore=False) == ("Flat",)
    assert choices(20_000, 256, rescore=True)[0] == choices(10**6, 256, rescore=True)[0] == "HNSW14,SQ8"
    assert choices(20_000, 256, rescore=False)[:2] == ("HNSW32,SQ8", "HNSW32,Flat")
    assert choices(10**7, 256, rescore=True)[0] == "IVF16384_HNSW32,PQ128x4fs"
    assert choices(10**7, 256, rescore=False)[0] == "IVF16384_HNSW32,SQ8"
    assert choices(10**7, 255, rescore=True)[0] == "IVF16384_HNSW32,SQ8"


@pytest.mark.parametrize("count", [1, 1000, 20_000, 10**6, 10**7])
@pytest.mark.parametrize("dim", [1, 2, 255, 256, 1024])
@pytest.mark.parametrize("rescore", [True, False])
def test_every_choice_can_be_made_and_is_within_the_budget(count: int, dim: int, rescore: bool) -> None:
    budget = count * (4 * dim + 40) + 10**6
    found = choices(count, dim, rescore=rescore, memory_budget=budget)
    assert found
    assert all(index_bytes(parse_spec(spec, dim), count) <= budget for spec in found)


def test_a_budget_leaves_out_what_is_larger() -> None:
    assert choices(10**6, 256, rescore=True, memory_budget=400 * 10**6)[0] == "HNSW14,SQ8"
    assert choices(10**6, 256, rescore=True, memory_budget=300 * 10**6)[0] == "IVF4096,PQ128x4fs"
    assert choices(1000, 256, rescore=True, memory_budget=1000 * 1024)[0] == "Flat"
    assert choices(1000, 256, rescore=True, memory_budget=1000 * 1023)[0] != "Flat"


def test_a_budget_too_small_for_any_says_what_the_smallest_takes() -> None:
    with pytest.raises(InputError, match=r"1,000 bytes are too few for 1,000,000 vectors of 256 dimensions; .* takes"):
        choices(10**6, 256, rescore=True, memory_budget=1000)
