"""The transformer's settings: each bad value is named."""

from __future__ import annotations

from typing import Any

import pytest

from index.errors import InputError
from training.transformer_config import TransformerConfig


def test_the_defaults_and_the_bounds_are_valid() -> None:
    TransformerConfig()
    TransformerConfig(query_tokens=3, label_tokens=3, projection=64, lora_rank=1, lora_alpha=1, weight_decay=0.0)
    TransformerConfig(projection=768, device="cuda:3", pooling="first")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pooling", "max"), ("query_tokens", 2), ("label_tokens", 0), ("projection", 63), ("projection", 769),
        ("projection", -1), ("rate", 0.0), ("projection_rate", float("nan")), ("rate", float("inf")),
        ("weight_decay", 1.0), ("weight_decay", -0.1), ("lora_rank", -1), ("lora_alpha", 0), ("device", "tpu"),
        ("device", "cuda:x"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^transformer\.{key}: must be .*{value}"):
        TransformerConfig(**{key: value})
