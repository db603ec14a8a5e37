"""Stable 64-bit hashes of strings and of arrays of integers: the same on every machine, for they are integers only."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Most values of fields are in many records; those that are longer are not worth the memory.
_KEPT = 1 << 16
_KEPT_CHARACTERS = 100
# As arrays: NumPy takes twice as long to add a scalar to a small array.
_STEP, _FIRST, _SECOND, _30, _27, _31 = (
    np.array(value, dtype=np.uint64)
    for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 30, 27, 31)
)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit (Steele et al., OOPSLA 2014)."""
    mixed = values + _STEP
    mixed ^= mixed >> _30
    mixed *= _FIRST
    mixed ^= mixed >> _27
    mixed *= _SECOND
    mixed ^= mixed >> _31
    return mixed


def salt(seed: int, namespace: str) -> np.uint64:
    """By name, so that adding or reordering namespaces moves no other feature."""
    return np.uint64(digest(f"{seed}:{namespace}"))


def digest(text: str) -> int:
    """The first 64 bits of the text's BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def digest_of_value(text: str) -> int:
    """The same, remembered."""
    return _kept_digest(text) if len(text) <= _KEPT_CHARACTERS else digest(text)


_kept_digest = lru_cache(maxsize=_KEPT)(digest)
