"""Texts to the hashes of their words, pairs of neighbouring words and character n-grams."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.hashing import mix

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[+#]")
_SPACE = 32


class Found(NamedTuple):
    """Values of one namespace: hashes (m,) uint64, and the texts (m,) int64 that they are of."""

    namespace: int
    texts: NDArray[np.int64]
    hashes: NDArray[np.uint64]


def tokens_of(text: str, characters: int) -> list[str]:
    """Runs of letters, runs of digits, + and #, of the text's beginning in NFKC and lower case."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text[:characters]).lower())


def normalise(text: str, characters: int) -> str:
    """The text's tokens (runs of letters, runs of digits, + and #), NFKC and lower case, a space around each."""
    return spaced(tokens_of(text, characters))


def spaced(tokens: Sequence[str]) -> str:
    """The tokens with a space around each, as TextFeatures takes them."""
    return f" {' '.join(tokens)} " if tokens else " "


class TextFeatures:
    """Normalised texts to the salted hashes of their features.

    salts: of all namespaces, number `first` and those that follow being what index.feature_spec.text_namespaces names.
    """

    def __init__(self, ngrams: tuple[int, ...], salts: Sequence[np.uint64], first: int, *, pairs: bool) -> None:
        self._ngram_lengths, self.pairs, self.first = ngrams, pairs, first
        salts = salts[first:]
        self._word_salt, self.pair_salt = salts[0], salts[1] if pairs else np.uint64(0)
        self._ngram_salts = salts[1 + pairs :][: len(ngrams)]
        self._places = mix(np.arange(256, dtype=np.uint64))

    def __call__(self, normal: Sequence[str]) -> list[Found]:
        """What `normal`, texts as `normalise` gives them, have of each namespace that any of them has something of."""
        found, _ = self.with_words(normal)
        return found

    def with_words(self, normal: Sequence[str]) -> tuple[list[Found], NDArray[np.uint64]]:
        """As above, and the unsalted hashes of all words in order, which pairs are made of."""
        lengths = [len(text) for text in normal]
        text_of_point = np.repeat(np.arange(len(normal)), lengths)
        points = np.frombuffer("".join(normal).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        longest = max(lengths, default=0)
        if longest > len(self._places):
            self._places = mix(np.arange(2 * longest, dtype=np.uint64))
        found, words = self._words(points, text_of_point)
        return found + self._ngrams(points, text_of_point), words

    def _words(
        self, points: NDArray[np.uint32], text_of_point: NDArray[np.int64]
    ) -> tuple[list[Found], NDArray[np.uint64]]:
        inside = points != _SPACE
        starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
        if not len(starts):
            return [], np.zeros(0, dtype=np.uint64)
        # A word's hash is the sum of its characters' hashes, each salted with its distance from the space before.
        places = np.arange(len(points))
        place = places - np.maximum.accumulate(np.where(inside, 0, places))
        letters = mix(points + self._places[place])
        letters[~inside] = 0
        words = np.add.reduceat(letters, starts)
        texts = text_of_point[starts]
        found = [Found(self.first, texts, words ^ self._word_salt)]
        if self.pairs:
            together = texts[1:] == texts[:-1]
            pairs = mix(words[:-1]) * np.uint64(3) + words[1:]
            found.append(Found(self.first + 1, texts[1:][together], pairs[together] ^ self.pair_salt))
        return found, words

    def _ngrams(self, points: NDArray[np.uint32], text_of_point: NDArray[np.int64]) -> list[Found]:
        space = points == _SPACE
        found = []
        first = self.first + 1 + self.pairs
        for number, (n, salt) in enumerate(zip(self._ngram_lengths, self._ngram_salts, strict=True)):
            count = len(points) - n + 1
            if count < 1:
                continue
            hashes = np.zeros(count, dtype=np.uint64)
            whole = text_of_point[:count] == text_of_point[n - 1 :]
            # Three code points of 21 bits fill a word: they need mixing only where more follow.
            for start in range(0, n, 3):
                hashes = hashes if start == 0 else mix(hashes)
                for place in range(start, min(start + 3, n)):
                    hashes += points[place : place + count].astype(np.uint64) << np.uint64(21 * (place - start))
            for place in range(1, n - 1):
                whole &= ~space[place : place + count]
            found.append(Found(first + number, text_of_point[:count][whole], hashes[whole] ^ salt))
        return found
