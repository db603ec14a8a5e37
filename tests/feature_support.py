"""The features of one record by plain integers and loops, written from the description of every namespace and table."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise, product

import numpy as np

from index.bags import Bags
from index.feature_spec import FeatureSpec
from index.fields import Fields

MASK = (1 << 64) - 1
Slots = list[dict[int, float]]


def digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(value: int) -> int:
    """SplitMix64's finaliser."""
    mixed = (value + 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def text_values(text: str, ngrams: Sequence[int], pairs: bool, characters: int) -> Iterator[tuple[str, int]]:
    """(kind, unsalted hash) of every word, pair and n-gram, as often as it is there."""
    tokens = re.findall(r"[^\W\d_]+|\d+|[+#]", unicodedata.normalize("NFKC", text[:characters]).lower())
    hashes = [sum(mix(ord(letter) + mix(place)) for place, letter in enumerate(token, 1)) & MASK for token in tokens]
    yield from (("word", value) for value in hashes)
    if pairs:
        yield from (("pair", (mix(one) * 3 + two) & MASK) for one, two in pairwise(hashes))
    for n in ngrams:
        for token in tokens:
            whole = f" {token} "
            for start in range(len(whole) - n + 1):
                value = 0
                for place in range(n):
                    value = mix(value) if place and place % 3 == 0 else value
                    value = (value + (ord(whole[start + place]) << (21 * (place % 3)))) & MASK
                yield f"ngram{n}", value


def as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def as_number(value: object) -> float:
    if value is None:
        return math.nan
    assert isinstance(value, (int, float, str))
    if isinstance(value, int) and abs(value) > 10**308:
        return math.inf if value > 0 else -math.inf
    return float(value)


def record_values(
    spec: FeatureSpec, tower: str, text: str, fields: Fields | None
) -> tuple[list[tuple[str, int]], dict[str, list[int]]]:
    """(namespace, salted hash) of what stands in bags, as often as it is there, and the salted hashes of histories."""
    found = [
        (kind, value ^ digest(f"{spec.seed}:{kind}"))
        for kind, value in text_values(text, spec.ngrams, spec.pairs, spec.characters)
    ]
    said: dict[str, list[int]] = {}
    histories: dict[str, list[int]] = {}
    for field in spec.fields:
        value = (fields or {}).get(field.name)
        salt = digest(f"{spec.seed}:field:{field.name}")
        if field.kind == "history":
            values = list(value)[-field.length :] if isinstance(value, (list, tuple)) else [value]
            histories[field.name] = [digest(as_text(one)) ^ salt for one in values if one is not None]
        elif not field.of(tower):
            continue
        elif field.kind == "text":
            for kind, one in text_values(str(value or ""), field.ngrams, field.pairs, spec.characters):
                found.append((f"{field.name}:{kind}", one ^ digest(f"{spec.seed}:field:{field.name}:{kind}")))
        elif field.kind == "numeric":
            number = as_number(value)
            name = "missing" if math.isnan(number) else f"bin {bisect_right(field.edges, number)}"
            said[field.name] = [digest(name)]
        else:
            values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]  # type: ignore[assignment]
            said[field.name] = [digest(one) for one in dict.fromkeys(map(as_text, values))]
    for name, values in said.items():
        found += [(f"field:{name}", one ^ digest(f"{spec.seed}:field:{name}")) for one in values]
    for cross in spec.crosses:
        name = f"cross:{'*'.join(cross)}"
        for combination in product(*(said.get(one, []) for one in cross)):
            crossed = combination[0]
            for one in combination[1:]:
                crossed = (mix(crossed) * 3 + one) & MASK
            found.append((name, crossed ^ digest(f"{spec.seed}:{name}")))
    return found, histories


def rows_of(spec: FeatureSpec, namespace: str, value: int, vocabulary: Sequence[int] = ()) -> list[int]:
    """The rows of a value, one for each probe; none where it is not in the vocabulary of an exact table."""
    if spec.table == "exact":
        return [list(vocabulary).index(value)] if value in vocabulary else []
    start, stop = 0, spec.rows
    if spec.table.endswith("split"):
        place = spec.namespaces.index(namespace)
        start, stop = spec.parts[place], spec.parts[place + 1]
    kinds = {f"field:{field.name}": field.kind for field in spec.fields}
    history = kinds.get(namespace) == "history"
    if spec.table.startswith("quotient") and not history:
        half = max(1, (stop - start) // 2)
        number = mix(value) % (half * half)
        return [start + number // half, start + min(half + number % half, stop - start - 1)]
    probes = {field.name: field.probes for field in spec.fields}
    count = spec.probes
    if namespace.startswith("cross:"):
        count = max(probes[name] for name in namespace.removeprefix("cross:").split("*"))
    elif namespace.startswith("field:"):
        count = probes[namespace.removeprefix("field:")]
    elif ":" in namespace:
        count = probes[namespace.split(":")[0]]
    salts = [0, *(digest(f"{spec.seed}:probe{probe}") for probe in range(1, count))]
    return [start + mix(value ^ salt) % (stop - start) for salt in salts]


def expected(
    spec: FeatureSpec,
    tower: str,
    text: str,
    fields: Fields | None,
    *,
    vocabulary: Sequence[int] = (),
    known: Sequence[bool] | None = None,
) -> tuple[dict[str, dict[int, float]], dict[str, list[int]], int]:
    """Rows and weights by slot name ("record" where there is one bag), rows of histories, and the count of unseen."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    unseen = set()
    values, histories = record_values(spec, tower, text, fields)
    for namespace, value in values:
        rows = rows_of(spec, namespace, value, vocabulary)
        if not rows or (known is not None and not all(known[row] for row in rows)):
            unseen.add((namespace, value))
            of_field = namespace.startswith(("field:", "cross:"))
            if not rows or spec.unseen == "ignore" or (spec.unseen == "ignore_fields" and of_field):
                continue
        for probe, row in enumerate(rows):
            slot = "record"
            if spec.separate:
                slot = namespace if len(rows) == 1 else f"{namespace}/{probe}"
            counts[slot][row] += 1
    sequences: dict[str, list[int]] = {}
    for name, hashes in histories.items():
        sequences[name] = []
        for value in hashes:
            rows = rows_of(spec, f"field:{name}", value, vocabulary)
            if not rows or (known is not None and not known[rows[0]]):
                unseen.add((f"field:{name}", value))
            if rows and (known is None or known[rows[0]] or spec.unseen == "keep"):
                sequences[name] += rows
    if spec.unseen != "keep" and known is not None and unseen and not counts and not any(sequences.values()):
        weights, sequences, _ = expected(spec, tower, text, fields, vocabulary=vocabulary)
        return weights, sequences, len(unseen)
    weights = {slot: {row: 1 + math.log(n) for row, n in bag.items()} for slot, bag in counts.items()}
    return weights, sequences, len(unseen)


def slots_of(spec: FeatureSpec, bags: Bags, text: int) -> dict[str, dict[int, float]]:
    """Rows and weights of a text by slot name, without the empty slots; each must be ascending."""
    found = {}
    for place, name in enumerate(spec.slot_names):
        start, stop = bags.offsets[text * bags.slots + place : text * bags.slots + place + 2].tolist()
        rows = bags.rows[start:stop].tolist()
        assert rows == sorted(set(rows))
        if rows:
            found[name] = dict(zip(rows, bags.weights[start:stop].astype(np.float64).tolist(), strict=True))
    return found
