"""Text and fields to stable table rows: words, pairs, character n-grams, values. The only featurizer there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags, Sequences, stack_bags
from index.errors import InputError
from index.feature_spec import CROSSED, FEATURES_VERSION, MOST_ROWS, TABLES, FeatureSpec
from index.field_features import FieldFeatures
from index.fields import Fields
from index.hashing import mix, salt
from index.placement import Placed, Placement
from index.text_features import Found, TextFeatures, normalise, spaced, tokens_of
from index.word_cells import WordMemory

if TYPE_CHECKING:
    from index.lexicon import Lexicon

__all__ = ["CROSSED", "FEATURES_VERSION", "MOST_ROWS", "TABLES", "FeatureSpec", "Featurizer", "normalise"]

# Texts are hashed in blocks so that the working arrays of a whole corpus stay small.
_BLOCK = 512
# So few and so short ones are put together from words seen before: a block costs by its calls, not by its texts.
_FEW_TEXTS = 4
_FEW_CHARACTERS = 1000
_T = TypeVar("_T", bound=np.generic)
_WEIGHTS = np.concatenate([[0.0], 1.0 + np.log(np.arange(1, 1024))]).astype(np.float32)


class Featurizer:
    """Texts and fields to Bags under one FeatureSpec; the same everywhere, for it uses integer arithmetic only."""

    def __init__(
        self,
        spec: FeatureSpec,
        tower: str = "query",
        lexicon: Lexicon | None = None,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        """tower: "query" or "label", whose records they are. lexicon: that of the spec, if it names one.

        known: (rows,), the rows that training touched. A value that has another is then counted, and left out where
        spec.unseen says so; but a record of which nothing would be left keeps all it has.
        Raises InputError for a lexicon that is not the spec's.
        """
        if spec.lexicon and (lexicon is None or lexicon.digest != spec.lexicon):
            there = "none was given" if lexicon is None else f"{lexicon.digest[:12]!r} was given"
            raise InputError(f"features.lexicon: is {spec.lexicon[:12]!r}, but {there}; take the model's own")
        self.spec, self.tower, self.lexicon = spec, tower, lexicon
        self._placement = Placement(spec, None if lexicon is None else lexicon.vocabulary, known)
        salts = [salt(spec.seed, space.salted) for space in spec.layout()]
        self._text = TextFeatures(spec.ngrams, salts, 0, pairs=spec.pairs)
        self._first_piece = 1 + spec.pairs + len(spec.ngrams)
        self._piece_salts = salts[self._first_piece :][:2]
        self._fields = FieldFeatures(spec, tower)
        self._words = WordMemory(self._text, self._placement)
        self._of_anything = Featurizer(spec, tower, lexicon) if self._placement.ignores else None

    @property
    def tells_unseen(self) -> bool:
        """Whether it counts the values that training never met."""
        return self._placement.tells_unseen

    def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        """fields: those of each text, or None for none at all.

        Raises InputError naming a field that the spec does not have or that is not read of this tower, or whose value
        is not of its kind (index.fields); and where the spec needs fitting to a corpus first.
        """
        bags = self._of_known(texts, fields)
        if self._of_anything is None or bags.unseen is None or not bags.unseen.any():
            return bags
        blank = np.flatnonzero((bags.lengths == 0) & (bags.unseen > 0))
        if not len(blank):
            return bags
        said = None if fields is None else [fields[row] for row in blank.tolist()]
        whole = self._of_anything([texts[row] for row in blank.tolist()], said)
        order = np.arange(len(bags))
        order[blank] = np.arange(len(bags), len(bags) + len(blank))
        return stack_bags(bags, replace(whole, unseen=bags.unseen[blank])).take(order)

    def _of_known(self, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> Bags:
        self._placement.check()
        if len(texts) <= _FEW_TEXTS and all(len(text) <= _FEW_CHARACTERS for text in texts):
            return self._few(texts, fields)
        blocks = [self._block(*block) for block in _blocks(texts, fields)]
        return blocks[0] if len(blocks) == 1 else stack_bags(*blocks)

    def hashes(
        self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """All values of all texts before they have a place, as often as they occur, in no order of note.

        Number of the namespace (in spec.namespaces) and salted hash, both (m,): an exact table's vocabulary is made of
        the hashes, which differ between namespaces. Needs no parts and no vocabulary. Raises InputError as a call does.
        """
        found: list[Found] = []
        for some, said in _blocks(texts, fields):
            normal = [normalise(text, self.spec.characters) for text in some]
            values, histories = self._values(normal, said)
            found += [*self._text(normal), *values, *histories]
        return _namespaces(found), _joined([one.hashes for one in found], np.uint64)

    def _block(self, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> Bags:
        normal = [normalise(text, self.spec.characters) for text in texts]
        found = self._text(normal)
        values, histories = self._values(normal, fields)
        return self._bags(len(texts), [self._place(found + values)], histories)

    def _few(self, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> Bags:
        """The same bags as of a block."""
        tokens = [tokens_of(text, self.spec.characters) for text in texts]
        placed, pairs, text_of_pair = [], [], []
        span = self._placement.slots * self._placement.rows
        for text, words in enumerate(tokens):
            cells = self._words(words)
            placed += [one.placed if not text else one.of_text(text, span) for one in cells]
            if self.spec.pairs and len(cells) > 1:
                pairs += [one.left + other.hash for one, other in pairwise(cells)]
                text_of_pair += [text] * (len(cells) - 1)
        found = []
        if pairs:
            # Each sum is of two numbers below 2^64, and only its last 64 bits count.
            hashes = np.array([pair & 0xFFFFFFFFFFFFFFFF for pair in pairs], dtype=np.uint64) ^ self._text.pair_salt
            found.append(Found(1, np.array(text_of_pair, dtype=np.int64), hashes))
        normal = [spaced(words) for words in tokens] if self.spec.pieces else [""] * len(texts)
        values, histories = self._values(normal, fields)
        if found or values:
            placed.append(self._place(found + values))
        return self._bags(len(texts), placed, histories)

    def _values(self, normal: Sequence[str], fields: Sequence[Fields | None] | None) -> tuple[list[Found], list[Found]]:
        """What there is beside words, pairs and n-grams: in bags, and in histories."""
        found, histories = self._fields(len(normal), fields)
        return (self._pieces(normal) + found if self.spec.pieces else found), histories

    def _pieces(self, normal: Sequence[str]) -> list[Found]:
        """Subword pieces, and neighbours among them."""
        if self.lexicon is None:
            raise InputError("features.pieces: the pieces are not known; fit them to a corpus first")
        texts, pieces = self.lexicon.pieces_of(normal)
        together = texts[1:] == texts[:-1]
        pairs = (mix(pieces[:-1]) * np.uint64(3) + pieces[1:])[together]
        return [
            Found(self._first_piece, texts, pieces ^ self._piece_salts[0]),
            Found(self._first_piece + 1, texts[1:][together], pairs ^ self._piece_salts[1]),
        ]

    def _place(self, found: list[Found]) -> Placed:
        texts = _joined([one.texts for one in found], np.int64)
        namespaces = _namespaces(found) if self._placement.looks_at_namespaces else texts
        return self._placement(texts, namespaces, _joined([one.hashes for one in found], np.uint64))

    def _bags(self, count: int, placed: list[Placed], histories: list[Found]) -> Bags:
        slots, table = self._placement.slots, self.spec.rows
        # One sort brings a bag's rows together and its repeats side by side.
        cells = _joined([one.cells for one in placed], np.int64)
        cells.sort()
        cells, weights = _distinct(cells)
        if count * slots == 1:
            offsets, rows = np.array([0, len(cells)]), cells.astype(np.int32)
        else:
            offsets = np.searchsorted(cells, np.arange(count * slots + 1) * table)
            rows = (cells % table).astype(np.int32)
        sequences: list[Sequences] = []
        for one in histories:
            sequence, lost = self._placement.sequences(count, *one)
            sequences.append(sequence)
            placed.append(lost)
        unseen = _unseen(count, placed) if self._placement.tells_unseen else None
        return Bags(offsets, rows, weights, slots, tuple(sequences), unseen)


def _blocks(
    texts: Sequence[str], fields: Sequence[Fields | None] | None
) -> list[tuple[Sequence[str], Sequence[Fields | None] | None]]:
    parts = [slice(start, start + _BLOCK) for start in range(0, len(texts), _BLOCK)] or [slice(0)]
    return [(texts[part], None if fields is None else fields[part]) for part in parts]


def _joined(parts: list[NDArray[_T]], dtype: type[_T]) -> NDArray[_T]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _namespaces(found: list[Found]) -> NDArray[np.int64]:
    return np.repeat(np.array([one.namespace for one in found], dtype=np.int64), [len(one.hashes) for one in found])


def _distinct(cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ascending cells each once, and 1 + ln(count), float32."""
    new = np.empty(len(cells) + 1, dtype=np.bool_)
    new[0] = new[-1] = True
    np.not_equal(cells[1:], cells[:-1], out=new[1:-1])
    bounds = new.nonzero()[0]
    if len(bounds) > len(cells):
        return cells, np.ones(len(cells), dtype=np.float32)
    counts = bounds[1:] - bounds[:-1]
    if len(cells) < len(_WEIGHTS) or counts.max() < len(_WEIGHTS):
        weights = _WEIGHTS[counts]
    else:
        weights = (1.0 + np.log(counts)).astype(np.float32)
    return cells[bounds[:-1]], weights


def _unseen(count: int, placed: Sequence[Placed]) -> NDArray[np.int32]:
    """How many values each text has among those that training never met, each counted once."""
    some = [one for one in placed if len(one.unseen_hashes)]
    if not some:
        return np.zeros(count, dtype=np.int32)
    hashes = np.concatenate([one.unseen_hashes for one in some])
    if count == 1:
        return np.array([len(set(hashes.tolist()))], dtype=np.int32)
    texts = np.concatenate([one.unseen_texts for one in some])
    order = np.lexsort((hashes, texts))
    texts, hashes = texts[order], hashes[order]
    new = np.ones(len(texts), dtype=np.bool_)
    new[1:] = (texts[1:] != texts[:-1]) | (hashes[1:] != hashes[:-1])
    return np.bincount(texts[new], minlength=count).astype(np.int32)
