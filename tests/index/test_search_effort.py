"""Settings of each kind of index."""

from __future__ import annotations

import faiss
import pytest

from index.index_choice import parse_spec
from index.search_effort import core_of, efforts, set_effort, set_list_effort, stored_in


@pytest.mark.parametrize(
    ("spec", "core", "stored"),
    [
        ("Flat", faiss.IndexFlat, faiss.IndexFlat),
        ("HNSW8,SQ8", faiss.IndexHNSWSQ, faiss.IndexScalarQuantizer),
        ("PCA8,IVF4,PQ4x4fs,RFlat", faiss.IndexIVFPQFastScan, faiss.IndexFlat),
        ("IVF4,PQ8x4fs,Refine(SQ8)", faiss.IndexIVFPQFastScan, faiss.IndexScalarQuantizer),
        ("RR16,IVF4,SQ8", faiss.IndexIVFScalarQuantizer, faiss.IndexIVFScalarQuantizer),
    ],
)
def test_what_is_inside(spec: str, core: type, stored: type) -> None:
    index = parse_spec(spec, 16)
    assert isinstance(core_of(index), core)
    assert isinstance(stored_in(index), stored)


def test_efforts_grow_and_are_set() -> None:
    for spec, name in (("HNSW8,SQ8", "efSearch"), ("PCA8,IVF64,SQ8", "nprobe")):
        index = parse_spec(spec, 16)
        tried = [level[0][name] for level in efforts(index)]
        assert tried == sorted(set(tried))
        set_effort(index, {name: tried[3], "rescore": 2.0})
        core = core_of(index)
        assert (core.hnsw.efSearch if name == "efSearch" else core.nprobe) == tried[3]
    assert [level[0]["nprobe"] for level in efforts(parse_spec("IVF3,SQ8", 16))] == [1, 2, 3]
    assert list(efforts(parse_spec("SQ8", 16))) == [[{}]]
    set_effort(parse_spec("Flat", 16), {"efSearch": 3, "nprobe": 4, "k_factor": 2})


def test_what_faiss_scores_again_has_a_factor() -> None:
    index = parse_spec("PCA8,IVF4,PQ4x4fs,RFlat", 16)
    levels = list(efforts(index))
    assert [level[0]["nprobe"] for level in levels] == [1, 2, 4]
    assert [search["k_factor"] for search in levels[1]] == [1, 2, 4, 8, 16, 32]
    set_effort(index, levels[1][3])
    assert core_of(index).nprobe == 2


def test_the_graph_over_lists_has_an_effort() -> None:
    core = core_of(parse_spec("IVF64_HNSW8,SQ8", 16))
    set_list_effort(core, 77)
    assert faiss.downcast_index(core.quantizer).hnsw.efSearch == 77
    set_list_effort(core_of(parse_spec("IVF64,SQ8", 16)), 77)
    set_list_effort(parse_spec("Flat", 16), 77)
