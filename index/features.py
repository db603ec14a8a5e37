"""Text and fields to stable table rows: words, pairs, character n-grams, values. The only featurizer there is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.bags import Bags, stack_bags
from index.errors import InputError
from index.field_spec import FieldSpec, parse_fields
from index.fields import Fields, field_values
from index.hashing import digest, mix, salt

FEATURES_VERSION = 1
TABLES = ("shared", "split", "quotient", "quotient_split", "exact")
CROSSED = ("categorical", "multivalent", "numeric")
# Row numbers are int32.
MOST_ROWS = (1 << 31) - 1
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
    fields: those that are read beside the text, in alphabetical order. crosses: names of fields whose values together
    are a feature, too. probes: rows that each feature of the text looks up. pieces: size of a vocabulary of subword
    pieces, learned from the corpus (0: none). separate: whether every field and every kind of text feature has a bag
    and a reader of its own (Unified Embedding, NeurIPS 2023), or all of a record are one bag. table: how features share
    it (index.placement). unseen: "keep" or "ignore" values whose rows training never touched.
    parts, lexicon: found on train: where each feature's part of a split table begins, and the digest of what
    index.lexicon keeps ("" for nothing).
    """

    rows: int = 1 << 18
    ngrams: tuple[int, ...] = (3,)
    pairs: bool = True
    characters: int = 4000
    seed: int = 0
    version: int = FEATURES_VERSION
    fields: tuple[FieldSpec, ...] = ()
    crosses: tuple[tuple[str, ...], ...] = ()
    probes: int = 1
    pieces: int = 0
    separate: bool = False
    table: str = "shared"
    unseen: str = "keep"
    parts: tuple[int, ...] = ()
    lexicon: str = ""

    def __post_init__(self) -> None:
        if self.version != FEATURES_VERSION:
            raise InputError(f"features of version {self.version}: this program makes version {FEATURES_VERSION}")
        if self.rows < 1 or self.characters < 1 or any(n < 2 or n > 16 for n in self.ngrams):
            raise InputError(f"features: rows and characters must be positive, n-grams 2 to 16 long; got {self}")
        if self.rows > MOST_ROWS:
            raise InputError(f"features.rows: must be at most {MOST_ROWS}, is {self.rows}")
        if not 1 <= self.probes <= 8 or self.pieces < 0:
            raise InputError(f"features: probes must be 1 to 8, pieces at least 0; are {self.probes}, {self.pieces}")
        if self.table not in TABLES:
            raise InputError(f"features.table: must be one of {', '.join(TABLES)}, is {self.table!r}")
        if self.unseen not in ("keep", "ignore"):
            raise InputError(f"features.unseen: must be keep or ignore, is {self.unseen!r}")
        object.__setattr__(self, "fields", parse_fields(self.fields))
        object.__setattr__(self, "crosses", tuple(sorted(tuple(sorted(cross)) for cross in self.crosses)))
        self._check_crosses()

    def _check_crosses(self) -> None:
        kinds = {field.name: field.kind for field in self.fields}
        for cross in self.crosses:
            if len(set(cross)) < 2 or any(kinds.get(name) not in CROSSED for name in cross):
                raise InputError(
                    f"features.crosses: {list(cross)} must be two or more different fields of kind {', '.join(CROSSED)}"
                )

    @property
    def field_names(self) -> tuple[str, ...]:
        """Of the fields, in order."""
        return tuple(field.name for field in self.fields)

    def to_json(self) -> dict[str, Any]:
        """Without what a spec did not have at first and is at its default: what a model's id is made of must not
        change."""
        values = {**asdict(self), "fields": [field.to_json() for field in self.fields]}
        first = ("rows", "ngrams", "pairs", "characters", "seed", "version")
        standard = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in values.items() if name in first or getattr(self, name) != standard[name]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FeatureSpec:
        tuples = {name: tuple(values[name]) for name in ("ngrams", "parts") if name in values}
        crosses = tuple(tuple(cross) for cross in values.get("crosses", ()))
        return cls(**{**values, **tuples, "crosses": crosses, "fields": parse_fields(values.get("fields", ()))})


def normalise(text: str, characters: int) -> str:
    """The text's tokens (runs of letters, runs of digits, + and #), NFKC and lower case, a space around each."""
    tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text[:characters]).lower())
    return f" {' '.join(tokens)} " if tokens else " "


class Featurizer:
    """Texts and fields to Bags under one FeatureSpec; the same everywhere, for it uses integer arithmetic only."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        namespaces = ("word", "pair", *(f"ngram{n}" for n in spec.ngrams))
        self._salts = {name: salt(spec.seed, name) for name in namespaces}
        self._field_salts = {name: int(salt(spec.seed, f"field:{name}")) for name in spec.field_names}
        self._places = mix(np.arange(spec.characters * _GROWTH + 2, dtype=np.uint64))

    def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        """fields: those of each text, or None for none at all.

        Raises InputError naming a field that the spec does not have, or whose value is none (index.fields).
        """
        parts = [slice(start, start + _BLOCK) for start in range(0, len(texts), _BLOCK)] or [slice(0)]
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
        rows = (mix(hashes) % np.uint64(self.spec.rows)).astype(np.int64)
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
        letters = mix(points + self._places[place])
        letters[~inside] = 0
        words = np.add.reduceat(letters, starts)
        texts = text_of_point[starts]
        found = [(texts, words ^ self._salts["word"])]
        if self.spec.pairs:
            together = texts[1:] == texts[:-1]
            pairs = mix(words[:-1]) * np.uint64(3) + words[1:]
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
                hashes = hashes if first == 0 else mix(hashes)
                for place in range(first, min(first + 3, n)):
                    hashes += points[place : place + count].astype(np.uint64) << np.uint64(21 * (place - first))
            for place in range(1, n - 1):
                whole &= ~space[place : place + count]
            found.append((text_of_point[:count][whole], hashes[whole] ^ self._salts[f"ngram{n}"]))
        return found

    def _values(self, fields: Sequence[Fields | None]) -> _Found:
        """Each value by the digest of its text, under the salt of its field's name."""
        said = [(text, *pair) for text, given in enumerate(fields) for pair in field_values(given, self.spec.fields)]
        hashes = [digest(value) ^ self._field_salts[name] for _, name, value in said]
        return np.array([text for text, _, _ in said], dtype=np.int64), np.array(hashes, dtype=np.uint64)


_Found = tuple[NDArray[np.int64], NDArray[np.uint64]]
