"""A built index copied to graphics cards: does it fit, what is copied, and a search that shows no hidden row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index.device import Device, free_bytes
from index.errors import LabelspaceError

Found = tuple[NDArray[np.float32], NDArray[np.int64]]

# FAISS selects no more rows, and probes no more lists, on a card.
MOST_ROWS = 2048
# Scratch memory that FAISS reserves on each card; its own default is three times this.
SCRATCH = 512 << 20
# FAISS pages a larger addition into small ones, and reallocates the whole copy for each.
_BLOCK_BYTES, _BLOCK_ROWS = 256 << 20, 512 << 10
# What the kernels can read; everything else is copied as plain vectors.
_SCALARS = frozenset(
    (
        faiss.ScalarQuantizer.QT_8bit,
        faiss.ScalarQuantizer.QT_8bit_uniform,
        faiss.ScalarQuantizer.QT_8bit_direct,
        faiss.ScalarQuantizer.QT_6bit,
        faiss.ScalarQuantizer.QT_4bit,
        faiss.ScalarQuantizer.QT_4bit_uniform,
        faiss.ScalarQuantizer.QT_fp16,
    )
)
_PRODUCT_BYTES = frozenset((1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96))
_PRODUCT_BITS = 8
_LIST_PADDING, _ALIGNMENT = 32, 256


class Searchable(Protocol):
    """A FAISS index on a card, or several searched as one."""

    def search(self, queries: NDArray[np.float32], k: int, *, params: Any = None) -> Found: ...


@dataclass(frozen=True, slots=True)
class CardBytes:
    """Memory that a copy takes on each card, in bytes: what it keeps, and the most while it is made."""

    kept: int
    peak: int


class CardIndex:
    """`host`, an index in this machine's memory, searched on cards; looks like an index to those who search it.

    copies: complete copies; a search takes one that is idle, so that as many run at once as there are copies. GPU
    indexes do not bear two searches at once. probes: whether the copies take an `nprobe`.
    """

    def __init__(self, host: faiss.Index, copies: Sequence[Searchable], *, probes: bool = False) -> None:
        self.host, self.probes = host, probes
        self.d, self.ntotal = int(host.d), int(host.ntotal)
        self._idle: SimpleQueue[Searchable] = SimpleQueue()
        for copy in copies:
            self._idle.put(copy)

    def search(
        self, queries: NDArray[np.float32], k: int, params: Any = None, shown: NDArray[np.uint8] | None = None
    ) -> Found:
        """Scores (n, k) float32 and rows (n, k) int64 of the k best rows for each query (n, dim), best first.

        params: those that `host` takes; their selector, or `shown` (a bit a row, lowest first, as IDSelectorBitmap
        has them; quicker, and has to say the same) tells what may be found. Cards know no selector: more rows than k
        are taken from them, twice as many each time, until k of them are shown ones; where that takes more than
        2,048 rows, or nprobe is above, `host` is searched. Where too few are there, row -1 with score -inf.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        scores = np.full((len(queries), max(k, 0)), -np.inf, dtype=np.float32)
        rows = np.full(scores.shape, -1, dtype=np.int64)
        if params is None and shown is not None:
            params, _kept = _masked(self.host, shown)
        mask = _Mask.of(params, shown)
        live = self.ntotal if mask is None else min(mask.count(self.ntotal), self.ntotal)
        wanted = min(k, live)
        if wanted < 1 or not len(queries):
            return scores, rows
        # Where hidden rows are spread evenly, this width suffices; a larger first step costs less than a second one.
        share = live / self.ntotal
        width = wanted if mask is None else min(int(1.25 * wanted / share) + 16, self.ntotal, MOST_ROWS)
        if wanted / share > MOST_ROWS or self._probes(params) > MOST_ROWS:
            return _clean(self.host.search(queries, k, params=params))
        open_ = np.arange(len(queries))
        while len(open_) and width <= MOST_ROWS:
            found_scores, found_rows = self._on_card(queries[open_], width, params)
            kept = found_rows >= 0 if mask is None else mask.shows(found_rows)
            # A card that returns -1 has no further row to give.
            certain = (kept.sum(1) >= wanted) | (found_rows < 0).any(1) | (width >= self.ntotal)
            first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
            best = np.where(np.take_along_axis(kept, first, 1), np.take_along_axis(found_rows, first, 1), -1)
            rows[open_[certain], : best.shape[1]] = best[certain]
            scores[open_[certain], : best.shape[1]] = np.take_along_axis(found_scores, first, 1)[certain]
            open_ = open_[~certain]
            width = min(2 * width, self.ntotal, MOST_ROWS) if width < MOST_ROWS else MOST_ROWS + 1
        if len(open_):
            scores[open_], rows[open_] = self.host.search(queries[open_], k, params=params)
        return _clean((scores, rows))

    def _probes(self, params: Any) -> int:
        return int(getattr(params, "nprobe", 0)) if self.probes else 0

    def _on_card(self, queries: NDArray[np.float32], width: int, params: Any) -> Found:
        probes = self._probes(params)
        # Never the caller's parameters: a selector in them would be passed over in silence.
        own = faiss.SearchParametersIVF(nprobe=probes) if probes else None
        copy = self._idle.get()
        try:
            scores, rows = copy.search(queries, width, params=own)
        except RuntimeError as error:
            raise LabelspaceError(
                f"the search on the card failed: {_reason(error)}; serve with --device cpu"
            ) from error
        finally:
            self._idle.put(copy)
        return np.asarray(scores, dtype=np.float32), np.asarray(rows, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Mask:
    """Which rows may be found: a bitmap, or a selector of FAISS', which is asked row by row."""

    bits: NDArray[np.uint8] | None
    selector: Any

    @classmethod
    def of(cls, params: Any, shown: NDArray[np.uint8] | None) -> _Mask | None:
        selector = _selector(params)
        return None if shown is None and selector is None else cls(shown, selector)

    def count(self, total: int) -> int:
        """How many rows are shown; with a selector, at most so many."""
        return total if self.bits is None else int(np.bitwise_count(self.bits).sum())

    def shows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of each row, whether it may be found; never -1. Any shape; rows past the bitmap's end are hidden."""
        if self.bits is None:
            answers = (row >= 0 and self.selector.is_member(row) for row in rows.ravel().tolist())
            return np.fromiter(answers, dtype=bool, count=rows.size).reshape(rows.shape)
        inside = (rows >= 0) & (rows < 8 * len(self.bits))
        safe = np.where(inside, rows, 0)
        set_: NDArray[np.bool_] = ((self.bits[safe >> 3] >> (safe & 7).astype(np.uint8)) & 1).astype(bool)
        return inside & set_


def _selector(params: Any) -> Any:
    """The selector in a search's parameters, or in those that they hold for an index inside."""
    while params is not None:
        if getattr(params, "sel", None) is not None:
            return params.sel
        params = getattr(params, "base_index_params", None) or getattr(params, "index_params", None)
    return None


def host_of(index: Any) -> faiss.Index:
    """The index in this machine's memory: what search parameters are made for and vectors read from."""
    found: faiss.Index = getattr(index, "host", index)
    return found


def place(index: faiss.Index, device: Device, vectors: NDArray[np.float32] | None = None) -> Any:
    """The index where it shall be searched: itself on the processor, a CardIndex on cards.

    device: a usable one. IVF indexes with flat, scalar or 8-bit product codes are copied as they are, their coarse
    index made flat; anything else (flat, HNSW, RaBitQ, re-scored) is copied as plain vectors and searched exactly:
    `vectors` (ntotal, dim) if given, else what the index stores. In fp16 a score of unit vectors is off by up to 1e-3.
    Raises LabelspaceError when it does not fit or the card refuses.
    """
    if device.kind != "cuda":
        return index
    check_fits(index, device, [free_bytes(card) for card in device.cards])
    lists = _listed(index) and vectors is None
    try:
        if lists:
            copies = _copy_lists(index, device)
        else:
            groups = [device.cards] if device.sharded else [(card,) for card in device.cards]
            copies = [_copy_vectors(index, vectors, cards, fp16=device.fp16) for cards in groups]
    except RuntimeError as error:
        raise LabelspaceError(f"device {device}: the copy failed: {_reason(error)}; serve with --device cpu") from error
    return CardIndex(index, copies, probes=lists)


def card_bytes(index: faiss.Index, device: Device) -> CardBytes:
    """What a copy takes on each of the device's cards (with sharding, on the fullest), scratch memory not counted.

    Plain vectors: dim numbers and a norm a row; copied block by block, each of which takes new memory beside the old.
    Lists: codes, padded to 32 rows a list, and an 8-byte row number, each piece rounded to 256 bytes.
    """
    shards = len(device.cards) if device.sharded else 1
    dim, count = int(index.d), -(-int(index.ntotal) // shards)
    if not _listed(index):
        number = 2 if device.fp16 else 4
        kept = count * (dim * number + 4)
        return CardBytes(kept, 2 * kept + (_block(dim) * dim * 6 if device.fp16 else 0))
    lists = index.invlists
    sizes = np.array([lists.list_size(place) for place in range(index.nlist)], dtype=np.int64)
    sizes = -(-sizes // shards)
    codes = _round(-(-sizes // _LIST_PADDING) * _LIST_PADDING * int(index.code_size), _ALIGNMENT)
    pieces = codes + _round(8 * sizes, _ALIGNMENT)
    kept = int(pieces.sum()) + index.nlist * (4 * dim + 4)
    return CardBytes(kept, kept + int(pieces.max(initial=0)))


def check_fits(index: faiss.Index, device: Device, free: Sequence[int | None]) -> None:
    """Raises LabelspaceError where a card has not the memory for a copy; free: bytes of each card, None if unknown."""
    needed = card_bytes(index, device).peak + SCRATCH
    for card, there in zip(device.cards, free, strict=True):
        if there is not None and needed > there:
            advice = ["--device cpu"] if device.sharded else ["sharding over several cards", "--device cpu"]
            if not device.fp16 and not _listed(index):
                advice.insert(0, "fp16")
            raise LabelspaceError(
                f"device {device}: copying {index.ntotal:,} vectors of {index.d} numbers takes {needed / 1e9:.2f} GB "
                f"of a card's memory, and card {card} has {there / 1e9:.2f} GB free: choose {' or '.join(advice)}"
            )


def _listed(index: faiss.Index) -> bool:
    """Whether a card can search the index' own lists and codes."""
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        return index.sq.qtype in _SCALARS
    if isinstance(index, faiss.IndexIVFPQ):
        plain = index.by_residual and not index.polysemous_ht
        return bool(plain and index.pq.nbits == _PRODUCT_BITS and index.pq.M in _PRODUCT_BYTES)
    return isinstance(index, faiss.IndexIVFFlat)


def flattened(index: faiss.Index) -> faiss.Index:
    """A view of an IVF index that shares its lists, with a flat coarse index: cards have no other.

    The view must not outlive `index`.
    """
    coarse = faiss.IndexFlat(index.d, index.metric_type)
    coarse.add(index.quantizer.reconstruct_n(0, index.nlist))
    shape = (coarse, index.d, index.nlist)
    if isinstance(index, faiss.IndexIVFPQ):
        view = faiss.IndexIVFPQ(*shape, index.pq.M, index.pq.nbits, index.metric_type)
        view.pq, view.by_residual = index.pq, index.by_residual
    elif isinstance(index, faiss.IndexIVFScalarQuantizer):
        view = faiss.IndexIVFScalarQuantizer(*shape, index.sq.qtype, index.metric_type, index.by_residual)
        view.sq = index.sq
    else:
        view = faiss.IndexIVFFlat(*shape, index.metric_type)
    view.replace_invlists(index.invlists, False)
    view.ntotal, view.is_trained, view.nprobe = index.ntotal, True, min(index.nprobe, MOST_ROWS)
    return view


def _copy_lists(index: faiss.Index, device: Device) -> list[Searchable]:
    view = flattened(index)
    if device.sharded:
        options = faiss.GpuMultipleClonerOptions()
        options.shard, options.useFloat16, options.use_cuvs = True, device.fp16, False
        resources = [_resources() for _ in device.cards]
        return [faiss.index_cpu_to_gpu_multiple_py(resources, view, options, list(device.cards))]
    options = faiss.GpuClonerOptions()
    options.useFloat16, options.use_cuvs = device.fp16, False
    return [faiss.index_cpu_to_gpu(_resources(), card, view, options) for card in device.cards]


def _copy_vectors(
    index: faiss.Index, vectors: NDArray[np.float32] | None, cards: Sequence[int], *, fp16: bool
) -> Searchable:
    """One exact copy over these cards, each with the next part of the rows."""
    parts: list[Any] = []
    bounds = np.linspace(0, index.ntotal, len(cards) + 1).astype(np.int64).tolist()
    for card, start, stop in zip(cards, bounds[:-1], bounds[1:], strict=True):
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16, config.use_cuvs = card, fp16, False
        part = faiss.GpuIndexFlat(_resources(), index.d, index.metric_type, config)
        for block in _blocks(index, vectors, start, stop):
            part.add(block)
        parts.append(part)
    one: Searchable = parts[0]
    if len(parts) == 1:
        return one
    # Searched at once, rows numbered on from part to part.
    together: Any = faiss.IndexShards(index.d, True, True)
    for part in parts:
        together.add_shard(part)
    merged: Searchable = together
    return merged


def _blocks(
    index: faiss.Index, vectors: NDArray[np.float32] | None, start: int, stop: int
) -> Iterator[NDArray[np.float32]]:
    step = _block(index.d)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        block = index.reconstruct_n(begin, end - begin) if vectors is None else vectors[begin:end]
        yield np.ascontiguousarray(block, dtype=np.float32)


def _block(dim: int) -> int:
    return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * dim)))


def _resources() -> Any:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH)
    return resources


def _masked(host: faiss.Index, shown: NDArray[np.uint8]) -> tuple[Any, list[Any]]:
    """Parameters of a search of `host` as it is set, among the shown rows, and all that has to live as long."""
    if isinstance(host, faiss.IndexRefine):
        inner, kept = _masked(faiss.downcast_index(host.base_index), shown)
        made = faiss.IndexRefineSearchParameters(k_factor=host.k_factor, base_index_params=inner)
        return made, [*kept, inner]
    if isinstance(host, faiss.IndexPreTransform):
        inner, kept = _masked(faiss.downcast_index(host.index), shown)
        return faiss.SearchParametersPreTransform(index_params=inner), [*kept, inner]
    selector = faiss.IDSelectorBitmap(shown)
    if isinstance(host, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=host.hnsw.efSearch, sel=selector), [selector]
    if isinstance(host, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=host.nprobe, sel=selector), [selector]
    return faiss.SearchParameters(sel=selector), [selector]


def _clean(found: Found) -> Found:
    scores, rows = np.asarray(found[0], dtype=np.float32), np.asarray(found[1], dtype=np.int64)
    scores[rows < 0] = -np.inf
    return scores, rows


def _round(sizes: NDArray[np.int64], unit: int) -> NDArray[np.int64]:
    rounded: NDArray[np.int64] = -(-sizes // unit) * unit
    return rounded


def _reason(error: RuntimeError) -> str:
    """FAISS puts the place in its source before what went wrong."""
    return str(error).strip().splitlines()[0].rpartition("Error: ")[2] if str(error).strip() else "no reason given"
