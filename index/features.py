"""Text and fields to stable table rows: words, pairs, character n-grams, values. The only featurizer there is."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import InputError
from index.fields import Fields, field_names, field_values
from index.packed import spans

FEATURES_VERSION = 1
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[+#]")
_SPACE = 32
# Texts are hashed in blocks so that the working arrays of a whole corpus stay small.
_BLOCK = 512
# The most characters that NFKC makes of one (U+FDFA), and at worst a space before each.
_GROWTH = 18 * 2


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a record's features are; part of a model, for a table trained under one spec means nothing under another.

    rows: size of the table they are hashed into. ngrams: lengths of the character n-grams (the spaces around a word
    count as characters). pairs: whether neighbouring words form a feature. characters: how much of a text is read.
    fields: names of the fields that are read beside the text, kept in alphabetical order; each value is a feature.
    """

    rows: int = 1 << 18
    ngrams: tuple[int, ...] = (3,)
    pairs: bool = True
    characters: int = 4000
    seed: int = 0
    version: int = FEATURES_VERSION
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.version != FEATURES_VERSION:
            raise InputError(f"features of version {self.version}: this program makes version {FEATURES_VERSION}")
        if self.rows < 1 or self.characters < 1 or any(n < 2 or n > 16 for n in self.ngrams):
            raise InputError(f"features: rows and characters must be positive, n-grams 2 to 16 long; got {self}")
        object.__setattr__(self, "fields", field_names(self.fields))

    def to_json(self) -> dict[str, Any]:
        """Without fields, as before there were any: what a model's id is made of must not change."""
        values = asdict(self)
        return values if self.fields else {name: value for name, value in values.items() if name != "fields"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FeatureSpec:
        return cls(**{**values, "ngrams": tuple(values["ngrams"]), "fields": tuple(values.get("fields", ()))})


@dataclass(frozen=True, slots=True)
class Bags:
    """The features of n texts: text i has rows `rows[offsets[i]:offsets[i + 1]]` (int32, ascending, no repeats).

    weights: float32 beside `rows`, 1 + ln(count) of the feature in its text. offsets: (n + 1,) int64.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def take(self, texts: NDArray[np.int64]) -> Bags:
        """The bags of the given texts, in that order."""
        lengths = self.lengths[texts]
        where = spans(self.offsets[texts], lengths)
        return Bags(_offsets(lengths), self.rows[where], self.weights[where])

    def padded(self, length: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows and weights as (n, length) arrays, filled up with row 0 of weight 0."""
        rows = np.zeros((len(self), length), dtype=np.int32)
        weights = np.zeros((len(self), length), dtype=np.float32)
        filled = np.arange(length) < self.lengths[:, None]
        rows[filled] = self.rows
        weights[filled] = self.weights
        return rows, weights


def stack_bags(*parts: Bags) -> Bags:
    """The texts of all parts, one after another."""
    return Bags(
        _offsets(np.concatenate([np.zeros(0, dtype=np.int64), *(part.lengths for part in parts)])),
        np.concatenate([np.zeros(0, dtype=np.int32), *(part.rows for part in parts)]),
        np.concatenate([np.zeros(0, dtype=np.float32), *(part.weights for part in parts)]),
    )


def normalise(text: str, characters: int) -> str:
    """The text's tokens (runs of letters, runs of digits, + and #), NFKC and lower case, a space around each."""
    tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text[:characters]).lower())
    return f" {' '.join(tokens)} " if tokens else " "


class Featurizer:
    """Texts and fields to Bags under one FeatureSpec; the same everywhere, for it uses integer arithmetic only."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        namespaces = ("word", "pair", *(f"ngram{n}" for n in spec.ngrams))
        self._salts = {name: _salt(spec.seed, name) for name in namespaces}
        self._field_salts = {name: int(_salt(spec.seed, f"field:{name}")) for name in spec.fields}
        self._places = _mix(np.arange(spec.characters * _GROWTH + 2, dtype=np.uint64))

    def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        """fields: those of each text, or None for none at all.

        Raises InputError naming a field that the spec does not have, or whose value is none (index.fields).
        """
        parts = [slice(start, start + _BLOCK) for start in range(0, len(texts), _BLOCK)]
        blocks = [self._block(texts[part], None if fields is None else fields[part]) for part in parts]
        return blocks[0] if len(blocks) == 1 else stack_bags(*blocks)

    def _block(self, texts: Sequence[str], fields: Sequence[Fields | None] | None) -> Bags:
        normal = [normalise(text, self.spec.characters) for text in texts]
        text_of_point = np.repeat(np.arange(len(normal)), [len(text) for text in normal])
        points = np.frombuffer("".join(normal).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        found = [*self._words(points, text_of_point), *self._ngrams(points, text_of_point)]
        if fields is not None:
            found.append(self._values(fields))
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *(value for _, value in found)])
        rows = (_mix(hashes) % np.uint64(self.spec.rows)).astype(np.int64)
        # One sort brings a text's features together and its repeats side by side.
        of_text = np.concatenate([np.zeros(0, dtype=np.int64), *(text for text, _ in found)])
        keys = np.sort(of_text * self.spec.rows + rows)
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.diff(first, append=len(keys))
        text_of_row, rows = np.divmod(keys[first], self.spec.rows)
        return Bags(
            np.searchsorted(text_of_row, np.arange(len(texts) + 1)),
            rows.astype(np.int32),
            (1.0 + np.log(counts)).astype(np.float32),
        )

    def _words(self, points: NDArray[np.uint32], text_of_point: NDArray[np.int64]) -> list[_Found]:
        inside = points != _SPACE
        starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
        if not len(starts):
            return []
        # A word's hash is the sum of its characters' hashes, each salted with its distance from the space before.
        places = np.arange(len(points))
        place = places - np.maximum.accumulate(np.where(inside, 0, places))
        letters = _mix(points + self._places[place])
        letters[~inside] = 0
        words = np.add.reduceat(letters, starts)
        texts = text_of_point[starts]
        found = [(texts, words ^ self._salts["word"])]
        if self.spec.pairs:
            together = texts[1:] == texts[:-1]
            pairs = _mix(words[:-1]) * np.uint64(3) + words[1:]
            found.append((texts[1:][together], pairs[together] ^ self._salts["pair"]))
        return found

    def _ngrams(self, points: NDArray[np.uint32], text_of_point: NDArray[np.int64]) -> list[_Found]:
        space = points == _SPACE
        found = []
        for n in self.spec.ngrams:
            count = len(points) - n + 1
            if count < 1:
                continue
            hashes = np.zeros(count, dtype=np.uint64)
            whole = text_of_point[:count] == text_of_point[n - 1 :]
            # Three code points of 21 bits fill a word: they need mixing only where more follow.
            for first in range(0, n, 3):
                hashes = hashes if first == 0 else _mix(hashes)
                for place in range(first, min(first + 3, n)):
                    hashes += points[place : place + count].astype(np.uint64) << np.uint64(21 * (place - first))
            for place in range(1, n - 1):
                whole &= ~space[place : place + count]
            found.append((text_of_point[:count][whole], hashes[whole] ^ self._salts[f"ngram{n}"]))
        return found

    def _values(self, fields: Sequence[Fields | None]) -> _Found:
        """Each value by the digest of its text, under the salt of its field's name."""
        said = [(text, *pair) for text, given in enumerate(fields) for pair in field_values(given, self.spec.fields)]
        hashes = [_digest(value) ^ self._field_salts[name] for _, name, value in said]
        return np.array([text for text, _, _ in said], dtype=np.int64), np.array(hashes, dtype=np.uint64)


_Found = tuple[NDArray[np.int64], NDArray[np.uint64]]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit (Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _salt(seed: int, namespace: str) -> np.uint64:
    """By name, so that adding or reordering namespaces moves no other feature."""
    return np.uint64(_digest(f"{seed}:{namespace}"))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
