"""Stable 64-bit hashes of strings and of arrays of integers: the same on every machine, for they are integers only."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit (Steele et al., OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def salt(seed: int, namespace: str) -> np.uint64:
    """By name, so that adding or reordering namespaces moves no other feature."""
    return np.uint64(digest(f"{seed}:{namespace}"))


def digest(text: str) -> int:
    """The first 64 bits of the text's BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
