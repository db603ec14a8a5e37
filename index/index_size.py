"""How many bytes an index takes, computed from what it is made of: the same in memory and on disk."""

from __future__ import annotations

from typing import Any

import faiss

_NUMBER = 8
_FLOAT = 4
# FAISS's graph keeps 4 bytes a link, and of each vector its level and where its links begin.
_LINK, _OF_NODE = 4, 12


def index_bytes(index: faiss.Index, count: int) -> int:
    """Bytes of an index, as made from a factory string and still empty, once it holds `count` vectors.

    Exact up to what is drawn by chance: how high the nodes of a graph reach, and how full the last block of a list is.
    """
    return round(_bytes(index, count))


def _bytes(index: Any, count: float) -> float:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        steps = (index.chain.at(step) for step in range(index.chain.size()))
        return float(sum(_FLOAT * step.d_in * step.d_out for step in steps)) + _bytes(index.index, count)
    if isinstance(index, faiss.IndexRefine):
        return _bytes(index.base_index, count) + _bytes(index.refine_index, count)
    if hasattr(index, "hnsw"):
        return _bytes(index.storage, count) + count * (_OF_NODE + _LINK * _links(index.hnsw))
    if isinstance(index, faiss.IndexIVF):
        return _bytes(index.quantizer, index.nlist) + _lists(index, count) + _trained(index)
    return count * float(index.sa_code_size()) + _trained(index)


def _links(hnsw: Any) -> float:
    """Links of a node on average: 2 M on the ground, M on each level above, which 1 of M nodes of that below reach."""
    ground, above = hnsw.nb_neighbors(0), hnsw.nb_neighbors(1)
    return float(ground + above / (above - 1)) if above > 1 else float(ground)


def _lists(index: Any, count: float) -> float:
    """Codes with a row number each; fast-scan codes fill blocks, of which the last of a list is half empty."""
    blank = index.nlist * (index.bbs - 1) / 2 if hasattr(index, "bbs") else 0.0
    return (count + blank) * float(index.code_size) + count * _NUMBER


def _trained(index: Any) -> float:
    """What training leaves: the range of each dimension, or the centres of each part of a product quantiser."""
    scalar = 2 * _FLOAT * index.d if hasattr(index, "sq") else 0
    products = _FLOAT * index.d * index.pq.ksub if hasattr(index, "pq") else 0
    lists = index.nlist * _NUMBER if isinstance(index, faiss.IndexIVF) else 0
    return float(scalar + products + lists)
