"""Fields of records to the hashes of their values, of their texts' features and of their crosses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.feature_spec import FeatureSpec, cross_name
from index.field_spec import FieldSpec
from index.fields import Fields, check_combinations, read_fields
from index.hashing import digest, digest_of_value, mix, salt
from index.packed import spans
from index.text_features import Found, TextFeatures, normalise

_Column = tuple[NDArray[np.int64], NDArray[np.uint64]]


class FieldFeatures:
    """The fields that a tower reads. A value's hash is the digest of its text, under the salt of its field's name."""

    def __init__(self, spec: FeatureSpec, tower: str) -> None:
        self._tower, self._characters = tower, spec.characters
        self._specs = {field.name: field for field in spec.fields}
        self._own = [field for field in spec.fields if field.of(tower)]
        self._numeric = {field.name: _Bins(field) for field in self._own if field.kind == "numeric"}
        self._histories = [field.name for field in spec.histories]
        layout = spec.layout()
        self._numbers = {space.name: number for number, space in enumerate(layout)}
        salts = [salt(spec.seed, space.salted) for space in layout]
        self._salts = dict(zip(self._numbers, salts, strict=True))
        self._texts = {}
        for field in self._own:
            if field.kind == "text":
                first = self._numbers[f"{field.name}:word"]
                self._texts[field.name] = TextFeatures(field.ngrams, salts, first, pairs=field.pairs)
        self._crosses = [cross for cross in spec.crosses if spec.crossed(cross, tower)]
        self.always = bool(self._numeric)

    def __call__(self, count: int, fields: Sequence[Fields | None] | None) -> tuple[list[Found], list[Found]]:
        """Values of `count` records, by text within a namespace: those in bags, and those of each history in order.

        Raises InputError naming a field or a cross that cannot be taken.
        """
        columns: dict[str, tuple[list[int], list[str]]] = {field.name: ([], []) for field in self._own}
        numbers = {name: np.full(count, np.nan) for name in self._numeric}
        for text, given in enumerate(fields or ()):
            if not given:
                continue
            said = read_fields(given, self._specs, self._tower)
            for name, values in said.values.items():
                texts, strings = columns[name]
                texts += [text] * len(values)
                strings += values
            for name, number in said.numbers.items():
                numbers[name][text] = number
        raw: dict[str, _Column] = {}
        found = []
        for field in self._own:
            texts, strings = columns[field.name]
            if field.kind == "text":
                found += self._texts_of(field.name, count, texts, strings)
            elif field.kind == "numeric":
                raw[field.name] = np.arange(count), self._numeric[field.name](numbers[field.name])
            elif strings:
                hashes = np.array([digest_of_value(value) for value in strings], dtype=np.uint64)
                raw[field.name] = np.array(texts, dtype=np.int64), hashes
        found += [self._salted(f"field:{name}", raw[name]) for name in raw if name not in self._histories]
        found += [
            self._salted(cross_name(cross), _crossed(cross, [raw[name] for name in cross], count))
            for cross in self._crosses
            if all(name in raw for name in cross)
        ]
        nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
        return found, [self._salted(f"field:{name}", raw.get(name, nothing)) for name in self._histories]

    def _salted(self, namespace: str, column: _Column) -> Found:
        return Found(self._numbers[namespace], column[0], column[1] ^ self._salts[namespace])

    def _texts_of(self, name: str, count: int, texts: list[int], strings: list[str]) -> list[Found]:
        if not texts:
            return []
        normal = [" "] * count
        for text, string in zip(texts, strings, strict=True):
            normal[text] = normalise(string, self._characters)
        return self._texts[name](normal)


class _Bins:
    """Numbers to hashes of their quantile bins, a missing one (NaN) to that of its own bin."""

    def __init__(self, field: FieldSpec) -> None:
        self._edges = np.array(field.edges)
        names = [*(f"bin {number}" for number in range(len(field.edges) + 1)), "missing"]
        self._hashes = np.array([digest(name) for name in names], dtype=np.uint64)

    def __call__(self, numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
        bins = np.searchsorted(self._edges, numbers, side="right")
        return self._hashes[np.where(np.isnan(numbers), len(self._hashes) - 1, bins)]


def _crossed(cross: Sequence[str], columns: Sequence[_Column], count: int) -> _Column:
    """Every combination of one value of each field, in the records that have them all."""
    each = np.stack([np.bincount(texts, minlength=count) for texts, _ in columns])
    # As floats: the product of several thousands overflows 64 bits.
    combinations = each.astype(np.float64).prod(axis=0)
    if count:
        check_combinations(cross, int(combinations.max()))
    texts, hashes = columns[0]
    for counts, (_, others) in zip(each[1:], columns[1:], strict=True):
        times = counts[texts]
        starts = np.cumsum(counts) - counts
        hashes = mix(np.repeat(hashes, times)) * np.uint64(3) + others[spans(starts[texts], times)]
        texts = np.repeat(texts, times)
    return texts, hashes
