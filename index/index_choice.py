"""Which index: what a factory string may say, and what `auto` tries for so many vectors in so many bytes."""

from __future__ import annotations

import re
from math import sqrt

import faiss

from index.errors import InputError, first_line
from index.index_size import index_bytes
from index.search_effort import core_of

EXACT_BELOW = 20_000
# A graph answers in half the time and hardly needs more of it for ten times the labels; an inverted file is built many
# times as fast, and beyond this the build decides.
_GRAPH_BELOW = 2_000_000
# What a search under a mask reads, of those that FAISS has: the others refuse its parameters.
_SEARCHED_MASKED = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexPQ, faiss.IndexRaBitQ, faiss.IndexIVF)
_PLACE = re.compile(r"^Error in .* at \S+\.(cpp|h):\d+: (Error: )?")
_SEVERAL = re.compile(r"\b(IDMap2?|NSG\d*|LSHr?t?)\b")


def parse_spec(spec: str, dim: int) -> faiss.Index:
    """The untrained inner-product index that a FAISS factory string describes.

    Raises InputError naming the string where FAISS cannot read it, or knows no search of it that leaves rows out.
    """
    try:
        index = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(
            f"index {spec!r}: FAISS makes none of {dim} dimensions from it ({said_by_faiss(error)}); "
            "say auto, or a factory string such as HNSW32,SQ8 or IVF4096_HNSW32,SQ8"
        ) from error
    core = core_of(index)
    if _SEVERAL.search(spec) or not (isinstance(core, _SEARCHED_MASKED) or hasattr(core, "hnsw")):
        raise InputError(
            f"index {spec!r}: cannot be searched without the labels that are removed or filtered out; "
            "say auto, or a factory string of Flat, SQ, PQ, HNSW or IVF"
        )
    return index


def said_by_faiss(error: BaseException) -> str:
    """The part of an exception of FAISS that is about the call, without the place in its source."""
    return _PLACE.sub("", first_line(error))


def cells(count: int) -> int:
    """Lists of an inverted file over `count` vectors: a power of 2 near 4 sqrt(count), each of 39 or more."""
    lists = 1
    while lists * 2 <= 5.7 * sqrt(count) and lists * 2 * 39 <= count:
        lists *= 2
    return lists


def choices(
    count: int, dim: int, *, rescore: bool, memory_budget: int | None = None, exact_below: int = EXACT_BELOW
) -> tuple[str, ...]:
    """Factory strings to build until one reaches the target, the first most likely to, each within memory_budget bytes.

    rescore: whether candidates are scored again by their vectors, which lets codes be coarse. Raises InputError where
    none is small enough.
    """
    graphs = ("HNSW14,SQ8",) if rescore else ("HNSW32,SQ8", "HNSW32,Flat")
    lists = _listed(count, dim, rescore)
    wanted = (*graphs, *lists) if count < _GRAPH_BELOW else (*lists, *graphs)
    if count < exact_below:
        wanted = ("Flat",) if memory_budget is None else ("Flat", *wanted)
    if memory_budget is None:
        return wanted
    sizes = {spec: index_bytes(parse_spec(spec, dim), count) for spec in wanted}
    small = tuple(spec for spec in wanted if sizes[spec] <= memory_budget)
    if not small:
        least = min(sizes, key=lambda spec: sizes[spec])
        raise InputError(
            f"memory: {memory_budget:,} bytes are too few for {count:,} vectors of {dim} dimensions; "
            f"the smallest index, {least}, takes {sizes[least]:,}"
        )
    return small


def _listed(count: int, dim: int, rescore: bool) -> tuple[str, ...]:
    """Inverted files, the first the fastest; with candidates scored again the codes need not tell near rows apart."""
    lists = cells(count)
    # Comparing a vector with this many centres takes as long as finding the nearest in a graph, and is exact.
    coarse = f"IVF{lists}" if lists <= 4096 else f"IVF{lists}_HNSW32"
    if not rescore:
        return (f"{coarse},SQ8",)
    halves = (f"{coarse},PQ{dim // 2}x4fs",) if dim % 2 == 0 else ()
    return (*halves, f"{coarse},SQ8", f"{coarse},RaBitQfs")
