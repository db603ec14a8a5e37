"""What is found on a corpus before it is featurised: bins of numbers, parts of a table, pieces, an exact vocabulary."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from index.errors import InputError
from index.features import FeatureSpec, Featurizer, normalise
from index.field_spec import FieldSpec
from index.fields import Fields, read_fields
from index.lexicon import Lexicon

_BLOCK = 8192
# A piece is a character at least: more characters than this share of the pieces leave too few for longer ones.
_CHARACTERS_SHARE = 0.5
_LEAST_COUNT = 2
_LONGEST_PIECE = 16
_MERGED_AT = 1 << 20


@dataclass(frozen=True, slots=True)
class Records:
    """Texts and their fields; fields: None where none are read."""

    texts: Sequence[str]
    fields: Sequence[Fields | None] | None = None

    def blocks(self) -> Iterator[Records]:
        """The records in their order, some at a time."""
        for start in range(0, len(self.texts), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield Records(self.texts[part], None if self.fields is None else self.fields[part])


def of_tower(
    fields: Sequence[Fields | None] | None, specs: Sequence[FieldSpec], tower: str
) -> Sequence[Fields | None] | None:
    """The fields that one tower reads, "query" or "label", of records that may have those of the other, too."""
    if fields is None or all(spec.of(tower) for spec in specs):
        return fields
    names = {spec.name for spec in specs if spec.of(tower)}
    return [said and ({name: value for name, value in said.items() if name in names} or None) for said in fields]


def fit_features(
    spec: FeatureSpec, queries: Records, labels: Records, lexicon: Lexicon | None = None
) -> tuple[FeatureSpec, Lexicon | None]:
    """The spec with all that is found on train, and what was learned beside it; None where that is nothing.

    queries: of train, without what is held out; labels: all. lexicon: that of a spec which was fitted before. What a
    spec has already stays as it is, so that fitting twice is fitting once. The result depends on nothing else: neither
    on threads nor on chance.
    Raises InputError when a numeric field has a value that is no number, when the table is too small for its parts, or
    when the lexicon is not that of the spec.
    """
    if spec.lexicon != (lexicon.digest if lexicon is not None else ""):
        raise InputError("features.lexicon: names what another run has learned; start from that run, or leave it empty")
    queries = replace(queries, fields=of_tower(queries.fields, spec.fields, "query"))
    labels = replace(labels, fields=of_tower(labels.fields, spec.fields, "label"))
    spec = replace(spec, fields=tuple(_with_edges(field, queries, labels) for field in spec.fields))
    if spec.pieces and lexicon is None:
        lexicon = Lexicon(learn_pieces(spec, [*queries.texts, *labels.texts]))
        spec = replace(spec, lexicon=lexicon.digest)
    parts = (("query", queries), ("label", labels))
    learned_vocabulary = lexicon is not None and lexicon.vocabulary is not None
    if spec.table == "exact" and not learned_vocabulary:
        vocabulary = np.unique(np.concatenate([values for values, _ in counted_values(spec, parts, lexicon)]))
        lexicon = Lexicon(None if lexicon is None else lexicon.pieces, vocabulary)
        spec = replace(spec, rows=max(1, len(vocabulary)), lexicon=lexicon.digest)
    if spec.table in ("split", "quotient_split") and not spec.parts:
        found = counted_values(spec, parts, lexicon)
        counts = [len(values) * space.probes for (values, _), space in zip(found, spec.layout(), strict=True)]
        # The quotient and the remainder need a row each.
        least = 2 if spec.table == "quotient_split" else 1
        spec = replace(spec, parts=levelled_parts(spec.rows, counts, least=least))
    return spec, lexicon


def _with_edges(field: FieldSpec, queries: Records, labels: Records) -> FieldSpec:
    if field.kind != "numeric" or field.edges:
        return field
    sides = [records.fields or () for tower, records in (("query", queries), ("label", labels)) if field.of(tower)]
    found = [
        read_fields({field.name: said[field.name]}, {field.name: field}, None).numbers.get(field.name, float("nan"))
        for side in sides
        for said in side
        if said and field.name in said
    ]
    return replace(field, edges=quantile_edges(np.array(found, dtype=np.float64), field.bins))


def quantile_edges(values: NDArray[np.float64], bins: int) -> tuple[float, ...]:
    """At most bins - 1 ascending numbers that cut the values into parts of about equal size; none for a constant.

    NaN and infinities are left out. An edge lies halfway between two values that occur, so that none is on an edge. A
    value that fills two bins or more is cut off on both sides: what is next to it is another matter.
    """
    distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    ends = np.cumsum(counts)
    if len(distinct) < 2:
        return ()
    hits = np.bincount(
        np.searchsorted(ends, np.arange(1, bins) * int(ends[-1]) // bins, side="right"), minlength=len(distinct)
    )
    cuts = np.union1d(np.flatnonzero(hits >= 1), np.flatnonzero(hits >= 2) + 1)
    cuts = cuts[(cuts > 0) & (cuts < len(distinct))]
    low, high = distinct[cuts - 1], distinct[cuts]
    middle = low / 2 + high / 2
    return tuple(np.unique(np.where(middle > low, middle, high)).tolist())


def levelled_parts(rows: int, counts: Sequence[int], *, least: int = 1) -> tuple[int, ...]:
    """Where the parts of a table of `rows` rows begin, and where the last ends: (len(counts) + 1,) ascending, from 0.

    counts: of the look-ups of each feature's values. Each part has as many rows as that, up to a bound that is the same
    for all and uses up the rows: in proportion, a feature of two values would soon have one row, and be lost. Rows
    beyond all look-ups are in proportion. A part has at least `least` rows; what is left over goes to the largest, of
    equal ones to the first. Raises InputError when there are not `least` rows for each.
    """
    if rows < least * len(counts):
        raise InputError(
            f"features.rows: must be at least {least * len(counts)}, for {len(counts)} parts, is {rows}; "
            'raise it, or share the table (features.table="shared")'
        )
    values = [max(least, count) for count in counts]
    total = sum(values)
    by_size = sorted(range(len(values)), key=lambda part: (-values[part], part))
    if rows >= total:
        sizes = [value * rows // total for value in values]
        open_parts = by_size
    else:
        bounds = range(least, max(values) + 1)
        bound = bounds[bisect_right(bounds, rows, key=lambda most: sum(min(value, most) for value in values)) - 1]
        sizes = [min(value, bound) for value in values]
        open_parts = [part for part in by_size if values[part] > bound]
    for part in open_parts[: rows - sum(sizes)]:
        sizes[part] += 1
    return (0, *np.cumsum(sizes, dtype=np.int64).tolist())


def learn_pieces(spec: FeatureSpec, texts: Sequence[str]) -> str:
    """A vocabulary of about `spec.pieces` subword pieces, by byte-pair encoding, as the text of a tokenizer.json.

    Sennrich et al., ACL 2016, over words with the space before them; what occurs once is left out. The most frequent
    characters are pieces, at most as many as half of all. Trained by the tokenizers library, whose merges are the same
    every time, unlike those of its unigram model; that takes ten times as long, too.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.trainers import BpeTrainer

    normal = [normalise(text, spec.characters)[:-1] for text in texts]
    alphabet = _alphabet(normal, max(1, int(spec.pieces * _CHARACTERS_SHARE)))
    trainer = BpeTrainer(
        vocab_size=spec.pieces,
        min_frequency=_LEAST_COUNT,
        show_progress=False,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=_LONGEST_PIECE,
    )
    library = Tokenizer(BPE())
    library.pre_tokenizer = Metaspace(prepend_scheme="never")
    library.train_from_iterator(normal, trainer, length=len(normal))
    content: str = library.to_str()
    return content


def _alphabet(normal: Sequence[str], most: int) -> list[str]:
    """The `most` most frequent characters, of equally frequent ones those of lower code points, in their order."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for start in range(0, len(normal), _BLOCK):
        points = np.frombuffer("".join(normal[start : start + _BLOCK]).encode("utf-32-le"), dtype=np.uint32)
        points, times = np.unique(points, return_counts=True)
        counts[points] += times
    # In a piece, the space before a word is this sign.
    counts[ord("▁")] = counts[ord(" ")]
    counts[ord(" ")] = 0
    order = np.argsort(-counts, kind="stable")[:most]
    return [chr(point) for point in sorted(order[counts[order] > 0].tolist())]


def counted_values(
    spec: FeatureSpec, parts: Sequence[tuple[str, Records]], lexicon: Lexicon | None
) -> list[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Of each of the spec's namespaces the hashes of the distinct values of records, ascending, and how often they
    occur. parts: records, each with its tower, "query" or "label"."""
    found = [_Counts() for _ in spec.namespaces]
    for tower, records in parts:
        # Hashes come before placement: they need no parts and nothing is left out.
        featurizer = Featurizer(replace(spec, table="shared", parts=()), tower, lexicon)
        for block in records.blocks():
            namespaces, hashes = featurizer.hashes(block.texts, block.fields)
            # Of two bytes, they are sorted by radix.
            order = np.argsort(namespaces.astype(np.int16), kind="stable")
            bounds = np.searchsorted(namespaces[order], np.arange(len(found) + 1))
            hashes = hashes[order]
            for counts, (start, stop) in zip(found, pairwise(bounds.tolist()), strict=True):
                counts.add(hashes[start:stop])
    return [counts.merged() for counts in found]


class _Counts:
    """Hashes and how often they were added, merged whenever what is new outgrows what is there."""

    def __init__(self) -> None:
        self._values, self._counts = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]

    def add(self, hashes: NDArray[np.uint64]) -> None:
        values, counts = np.unique(hashes, return_counts=True)
        self._values.append(values)
        self._counts.append(counts)
        if sum(map(len, self._values[1:])) > max(_MERGED_AT, len(self._values[0])):
            self.merged()

    def merged(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        values, inverse = np.unique(np.concatenate(self._values), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate(self._counts), len(values)).astype(np.int64)
        self._values, self._counts = [values], [counts]
        return values, counts
