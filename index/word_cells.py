"""The table cells of single words, remembered: what makes the features of one short text fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.hashing import mix
from index.placement import Placed, Placement
from index.text_features import TextFeatures, spaced

# A word and its cells take about half a kilobyte.
_KEPT = 1 << 15
_KEPT_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class WordCells:
    """What a word contributes wherever it stands.

    placed: itself and its n-grams, as those of text 0. hash, left: its own unsalted hash, and what it adds to the hash
    of a pair that it begins.
    """

    placed: Placed
    hash: int
    left: int

    def of_text(self, text: int, span: int) -> Placed:
        """The same, where each text has `span` cells."""
        cells, unseen_texts, unseen_hashes = self.placed
        return Placed(cells + text * span, unseen_texts + text, unseen_hashes)


class WordMemory:
    """Words to their cells under one placement; a pair of words is no word's."""

    def __init__(self, features: TextFeatures, placement: Placement) -> None:
        self._features, self._placement = features, placement
        self._kept: dict[str, WordCells] = {}

    def __call__(self, words: Sequence[str]) -> list[WordCells]:
        """Of each word, in order."""
        # Another thread may put an empty memory in the place of this one, but takes no word out of it.
        kept = self._kept
        missing = [word for word in words if word not in kept]
        if not missing:
            return [kept[word] for word in words]
        missing = list(dict.fromkeys(missing))
        made = dict(zip(missing, self._made(missing), strict=True))
        found = [made[word] if word in made else kept[word] for word in words]
        if len(kept) + len(made) > _KEPT:
            kept = self._kept = {}
        kept.update((word, cells) for word, cells in made.items() if len(word) <= _KEPT_CHARACTERS)
        return found

    def _made(self, words: list[str]) -> list[WordCells]:
        found, hashes = self._features.with_words([spaced([word]) for word in words])
        # No text here has two words, and so none has a pair.
        texts = np.concatenate([one.texts for one in found])
        namespaces = texts
        if self._placement.looks_at_namespaces:
            namespaces = np.repeat([one.namespace for one in found], [len(one.texts) for one in found])
        placed = self._placement(texts, namespaces, np.concatenate([one.hashes for one in found]))
        span = self._placement.slots * self._placement.rows
        cells = np.sort(placed.cells)
        starts = np.searchsorted(cells, np.arange(len(words) + 1) * span).tolist()
        left = (mix(hashes) * np.uint64(3)).tolist()
        nothing = placed.unseen_texts[:0], placed.unseen_hashes[:0]
        made = []
        for word, own in enumerate(hashes.tolist()):
            lost = nothing
            if len(placed.unseen_texts):
                out = placed.unseen_texts == word
                lost = placed.unseen_texts[out] - word, placed.unseen_hashes[out]
            of_word = Placed(cells[starts[word] : starts[word + 1]] - word * span, *lost)
            made.append(WordCells(of_word, own, left[word]))
        return made
