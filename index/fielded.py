"""The tokens of texts beside the bags of their fields: what a transformer tower reads that knows fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags
from index.features import Featurizer
from index.fields import Fields
from index.tokens import Tokens


@dataclass(frozen=True, slots=True)
class FieldedTokens:
    """The tokens of n texts and the bags of their n records' fields."""

    tokens: Tokens
    bags: Bags

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens or features of each text, whichever are more: padded cells of either are no more than by these."""
        return np.maximum(self.tokens.lengths, self.bags.lengths)

    def take(self, texts: NDArray[np.int64]) -> FieldedTokens:
        """Those of the given texts, in that order."""
        return FieldedTokens(self.tokens.take(texts), self.bags.take(texts))


class FieldedTokenizer:
    """Texts and fields to FieldedTokens: the texts by a tokenizer, the fields alone by a featurizer."""

    def __init__(self, tokenize: Callable[[Sequence[str]], Tokens], featurizer: Featurizer) -> None:
        self._tokenize, self._featurizer = tokenize, featurizer

    def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> FieldedTokens:
        """Raises InputError for fields as Featurizer does."""
        return FieldedTokens(self._tokenize(texts), self._featurizer([""] * len(texts), fields))
