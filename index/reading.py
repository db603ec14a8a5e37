"""What a model reads of texts and fields: how new fields are checked, and taken from the log of another model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from index.encoder import Encoder
from index.errors import InputError
from index.facets import check_facet
from index.features import FeatureSpec
from index.fields import Fields, field_values
from index.tokens import TokenSpec

# Of a bundle: what its towers read.
Features = FeatureSpec | TokenSpec


def check_query(features: Features, fields: Fields | None) -> None:
    """Raises InputError naming a field of a query that the model does not read of queries, or whose value is none."""
    if fields:
        bags = features if isinstance(features, FeatureSpec) else features.bags
        field_values(fields, features.fields, "query", () if bags is None else bags.crosses)


def check_label(features: Features, fields: Fields | None) -> None:
    """Raises InputError naming a field of a label whose value is none: that the model cannot read, where it reads the
    field, or that nobody can filter by."""
    if not fields:
        return
    read = _read(features, fields, "label")
    if read:
        bags = features if isinstance(features, FeatureSpec) else features.bags
        field_values(read, features.fields, "label", () if bags is None else bags.crosses)
    for name, value in fields.items():
        if name not in read:
            check_facet(name, value)


def known_fields(features: Features, fields: Fields | None, tower: str) -> Fields | None:
    """Those that a tower ("query", "label") reads: a log may come from a time when another model was served."""
    if not fields:
        return None
    read = _read(features, fields, tower)
    bags = features if isinstance(features, FeatureSpec) else features.bags
    crosses = () if bags is None else bags.crosses
    with suppress(InputError):
        field_values(read, features.fields, tower, crosses)
        return read or None
    found: dict[str, object] = {}
    for name, value in read.items():
        with suppress(InputError):
            field_values({**found, name: value}, features.fields, tower, crosses)
            found[name] = value
    return found or None


def encode_known(encoder: Encoder, texts: Sequence[str], fields: Sequence[Fields | None]) -> NDArray[np.float32]:
    """What a tower makes of these, (len(texts), dim); zero where neither text nor fields say anything.

    fields: of each, those that the tower reads (`known_fields`).
    """
    if not texts:
        return np.zeros((0, encoder.dim), dtype=np.float32)
    vectors = encoder.texts(texts, fields)
    vectors[[not says_something(*pair) for pair in zip(texts, fields, strict=True)]] = 0.0
    return vectors


def says_something(text: str, fields: Fields | None) -> bool:
    """Whether a record does: by a text that is not blank, or by a field that is neither null nor []."""
    return bool(text.strip()) or any(
        value is not None and (not isinstance(value, (list, tuple)) or len(value) > 0)
        for value in (fields or {}).values()
    )


def _read(features: Features, fields: Fields, tower: str) -> dict[str, object]:
    names = {spec.name for spec in features.fields if spec.of(tower)}
    return {name: value for name, value in fields.items() if name in names}
