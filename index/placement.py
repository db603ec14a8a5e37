"""Where in the table the values of features have their rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.bags import Sequences, offsets_of
from index.errors import InputError
from index.feature_spec import FeatureSpec
from index.hashing import mix, salt


class Placed(NamedTuple):
    """Values by the cells that they fall in, (text * slots + slot) * rows + row, int64; and those of them, or
    beside them, that training never met: text and hash."""

    cells: NDArray[np.int64]
    unseen_texts: NDArray[np.int64]
    unseen_hashes: NDArray[np.uint64]


class Placement:
    """Hashes of values to rows of the table, as FeatureSpec.table says.

    shared: all values are hashed to all rows (feature multiplexing, Unified Embedding, NeurIPS 2023). split: the values
    of each namespace are hashed to its own part of the rows. quotient, quotient_split: a value is a number below m * m,
    m being half of those rows, and has the row of its quotient by m and that of its remainder (compositional
    embeddings, KDD 2020). exact: a value has the row of its hash's place in a vocabulary, or none.
    A history, whose values have one row each, is hashed where others have quotients.
    """

    def __init__(
        self, spec: FeatureSpec, vocabulary: NDArray[np.uint64] | None, known: NDArray[np.bool_] | None
    ) -> None:
        """vocabulary: ascending hashes, of an exact table. known: (rows,), those that training touched: values
        with another row are told, and left out where the spec says so."""
        spaces = spec.layout()
        self.slots, self.rows = len(spec.slot_names), spec.rows
        self._spec, self._vocabulary, self._known = spec, vocabulary, known
        probes = np.array([space.probes for space in spaces])
        self._probes, self._most = probes, int(probes.max(initial=1))
        self._even = bool((probes == self._most).all())
        self._salts = [np.uint64(0), *(salt(spec.seed, f"probe{probe}") for probe in range(1, self._most))]
        taken = np.array([space.probes if space.slotted else 0 for space in spaces], dtype=np.int64)
        self._first = np.cumsum(taken) - taken if spec.separate else None
        split = spec.table.endswith("split")
        parts = np.array(spec.parts if split and spec.parts else [0, spec.rows], dtype=np.int64)
        self._starts, self._sizes = parts[:-1], np.diff(parts)
        # An array rather than a scalar: NumPy takes those in half the time.
        self._modulus = np.array(spec.rows, dtype=np.uint64)
        self._moduli = self._sizes.astype(np.uint64)
        self._halves = np.maximum(1, self._moduli // np.uint64(2))
        self._split, self._quotients = split, spec.table.startswith("quotient")
        self.looks_at_namespaces = split or spec.separate or not self._even
        self.tells_unseen = known is not None or spec.table == "exact"
        # By namespace, whether values that training never met are left out.
        of_text = np.array([space.of_text for space in spaces], dtype=np.bool_)
        self._ignored = ~of_text if spec.unseen == "ignore_fields" else np.full(len(spaces), spec.unseen == "ignore")
        self.ignores = known is not None and bool(self._ignored.any())
        if self.ignores and not self._ignored.all():
            self.looks_at_namespaces = True

    def check(self) -> None:
        """Raises InputError where the spec or what goes with it was not fitted to a corpus yet."""
        if self._split and not self._spec.parts:
            raise InputError("features.parts: the parts of a split table are not known; fit them to a corpus first")
        if self._spec.table == "exact" and self._vocabulary is None:
            raise InputError("features.table: an exact table needs the vocabulary of a corpus; fit it first")
        if self._known is not None and len(self._known) != self.rows:
            raise InputError(f"known: there are {self.rows} rows, {len(self._known)} were given")

    def __call__(self, texts: NDArray[np.int64], namespaces: NDArray[np.int64], hashes: NDArray[np.uint64]) -> Placed:
        """All rows of all values; namespaces: (m,), or anything at all unless `looks_at_namespaces`."""
        if self._most > 1:
            return self._several(texts, namespaces, hashes)
        rows = self._rows(namespaces, hashes, 0, quotients=False)
        bags = texts if self._first is None else texts * self.slots + self._first[namespaces]
        cells = bags * self.rows + rows
        if self.tells_unseen:
            there = self._is_known(rows)
            if not there.all():
                kept = self._kept(namespaces, there, rows >= 0)
                return Placed(cells[kept], texts[~there], hashes[~there])
        return Placed(cells, texts[:0], hashes[:0])

    def _several(self, texts: NDArray[np.int64], namespaces: NDArray[np.int64], hashes: NDArray[np.uint64]) -> Placed:
        """As above, arrays (probes, m) of which those a namespace has are used."""
        probes = np.arange(self._most)[:, None]
        rows = np.stack(
            [self._rows(namespaces, hashes, probe, quotients=self._quotients) for probe in range(self._most)]
        )
        used = probes < self._probes[namespaces] if not self._even else np.ones(rows.shape, dtype=np.bool_)
        bags = texts if self._first is None else texts * self.slots + self._first[namespaces] + probes
        cells = bags * self.rows + rows
        if not self.tells_unseen:
            return Placed(cells[used], texts[:0], hashes[:0])
        there: NDArray[np.bool_] = np.all(self._is_known(rows) | ~used, axis=0)
        placed: NDArray[np.bool_] = np.all(rows >= 0, axis=0)
        kept = self._kept(namespaces, there, placed)
        return Placed(cells[used & kept], texts[~there], hashes[~there])

    def sequences(
        self, count: int, namespace: int, texts: NDArray[np.int64], hashes: NDArray[np.uint64]
    ) -> tuple[Sequences, Placed]:
        """The values of `count` texts' histories, in the order given, and those unseen (cells are then empty)."""
        rows = self._rows(np.full(len(hashes), namespace), hashes, 0, quotients=False)
        lost = Placed(texts[:0], texts[:0], hashes[:0])
        if self.tells_unseen:
            there = self._is_known(rows)
            lost = Placed(texts[:0], texts[~there], hashes[~there])
            kept = there if self._ignored[namespace] else rows >= 0
            rows, texts = rows[kept], texts[kept]
        return Sequences(offsets_of(np.bincount(texts, minlength=count)), rows.astype(np.int32)), lost

    def _kept(
        self, namespaces: NDArray[np.int64], known: NDArray[np.bool_], placed: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which values take part: of some namespaces those that are known, of others all that have a row."""
        if self._known is None or self._ignored.all():
            return known
        if not self._ignored.any():
            return placed
        kept: NDArray[np.bool_] = np.where(self._ignored[namespaces], known, placed)
        return kept

    def _rows(
        self, namespaces: NDArray[np.int64], hashes: NDArray[np.uint64], probe: int, *, quotients: bool
    ) -> NDArray[np.int64]:
        """(m,) int64; -1 for a value that is not in the vocabulary."""
        if self._spec.table == "exact":
            return self._places(hashes)
        if quotients:
            part = namespaces if self._split else 0
            half = self._halves[part]
            number = mix(hashes) % (half * half)
            row = number // half if probe == 0 else half + number % half
            # A part of one row has no second half.
            rows: NDArray[np.int64] = np.minimum(row.astype(np.int64), self._sizes[part] - 1) + self._starts[part]
            return rows
        mixed = mix(hashes ^ self._salts[probe] if probe else hashes)
        if self._split:
            return (mixed % self._moduli[namespaces]).astype(np.int64) + self._starts[namespaces]
        return (mixed % self._modulus).astype(np.int64)

    def _places(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        vocabulary = self._vocabulary
        if vocabulary is None or not len(vocabulary):
            return np.full(len(hashes), -1)
        rows = np.minimum(np.searchsorted(vocabulary, hashes), len(vocabulary) - 1)
        found: NDArray[np.int64] = np.where(vocabulary[rows] == hashes, rows, -1)
        return found

    def _is_known(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self._known is None:
            return rows >= 0
        known: NDArray[np.bool_] = self._known[rows]
        return known & (rows >= 0) if self._spec.table == "exact" else known
