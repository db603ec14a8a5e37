"""How hard an approximate index searches: the settings of each kind, from least to most, and putting them in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import faiss

_BEAMS = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)
_PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_FACTORS = (1, 2, 4, 8, 16, 32)


def core_of(index: faiss.Index) -> faiss.Index:
    """The graph, inverted file or codes inside what transforms vectors before it, or scores again behind it."""
    index = _part(index, index)
    if isinstance(index, faiss.IndexRefine):
        return core_of(_part(index, index.base_index))
    if isinstance(index, faiss.IndexPreTransform):
        return core_of(_part(index, index.index))
    return index


def stored_in(index: faiss.Index) -> faiss.Index:
    """The part whose codes give the scores that come out."""
    refine = _refine(index)
    if refine is not None:
        return _part(refine, refine.refine_index)
    core = core_of(index)
    return _part(core, core.storage) if hasattr(core, "hnsw") else core


def efforts(index: faiss.Index) -> Iterator[list[dict[str, float]]]:
    """Settings to try, in levels, each with more effort than the one before it; one without any where none can be set.

    efSearch of a graph; nprobe of an inverted file. In a level, k_factor differs where FAISS itself scores again.
    """
    for setting in _of_core(core_of(index)):
        if _refine(index) is None:
            yield [setting]
        else:
            yield [{**setting, "k_factor": float(factor)} for factor in _FACTORS]


def set_effort(index: faiss.Index, search: Mapping[str, float]) -> None:
    """Put settings of `efforts` in place; of others, such as "rescore", an index knows nothing."""
    core: Any = core_of(index)
    if "efSearch" in search and hasattr(core, "hnsw"):
        core.hnsw.efSearch = int(search["efSearch"])
    if "nprobe" in search and isinstance(core, faiss.IndexIVF):
        core.nprobe = int(search["nprobe"])
    refine = _refine(index)
    if refine is not None and "k_factor" in search:
        refine.k_factor = float(search["k_factor"])


def set_list_effort(core: Any, effort: int) -> None:
    """efSearch of the graph that finds the lists of an inverted file; of anything else, nothing."""
    if isinstance(core, faiss.IndexIVF):
        quantizer = faiss.downcast_index(core.quantizer)
        if hasattr(quantizer, "hnsw"):
            quantizer.hnsw.efSearch = effort


def _of_core(core: Any) -> list[dict[str, float]]:
    if hasattr(core, "hnsw"):
        return [{"efSearch": float(beam)} for beam in _BEAMS]
    if isinstance(core, faiss.IndexIVF):
        inside = [{"nprobe": float(probes)} for probes in _PROBES if probes < core.nlist]
        return [*inside, {"nprobe": float(core.nlist)}] if core.nlist <= _PROBES[-1] else inside
    return [{}]


def _refine(index: faiss.Index) -> Any:
    index = _part(index, index)
    if isinstance(index, faiss.IndexPreTransform):
        return _refine(_part(index, index.index))
    return index if isinstance(index, faiss.IndexRefine) else None


def _part(whole: Any, part: Any) -> Any:
    """A part as the class it is; FAISS owns it by the whole, which lives as long."""
    found: Any = faiss.downcast_index(part)
    found.referenced_objects = [whole]
    return found
