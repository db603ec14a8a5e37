"""Settings of a transformer tower, the section [transformer] of a run's configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from index.errors import InputError

POOLINGS = ("model", "mean", "first")


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """A transformer encoder as a tower.

    model: folder of a sentence-transformers or Hugging Face model, or its name on the hub. pooling: "model" (what the
    folder says; mean where it says nothing), "mean", or "first" (the first token). query_tokens, label_tokens: longest
    text, special tokens included. projection: width of a linear map without bias after the model (0: none).
    rate, projection_rate: of AdamW, for the model (or its LoRA matrices) and for the projection. lora_rank: rank of
    LoRA matrices beside the frozen model (0: all weights are trained); lora_alpha / lora_rank scales them.
    gradient_checkpointing: activations are computed again in the backward pass instead of kept. bf16: mixed precision,
    on CUDA only. device: "auto" (CUDA where there is some), "cpu", "cuda" or "cuda:N".

    Raises InputError naming the setting.
    """

    model: str = ""
    pooling: str = "model"
    query_tokens: int = 128
    label_tokens: int = 64
    projection: int = 0
    rate: float = 5e-5
    projection_rate: float = 1e-3
    weight_decay: float = 0.01
    lora_rank: int = 0
    lora_alpha: int = 16
    gradient_checkpointing: bool = False
    bf16: bool = True
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"transformer.pooling: must be one of {', '.join(POOLINGS)}, is {self.pooling!r}")
        for key in ("query_tokens", "label_tokens"):
            # Two are the special tokens around a text.
            if getattr(self, key) < 3:
                raise InputError(f"transformer.{key}: must be at least 3, is {getattr(self, key)}")
        if self.projection and not 64 <= self.projection <= 768:
            raise InputError(f"transformer.projection: must be 0 (none) or 64 to 768, is {self.projection}")
        for key in ("rate", "projection_rate"):
            if not 0 < getattr(self, key) < float("inf"):
                raise InputError(f"transformer.{key}: must be positive, is {getattr(self, key)}")
        if not 0 <= self.weight_decay < 1:
            raise InputError(f"transformer.weight_decay: must be at least 0 and below 1, is {self.weight_decay}")
        for key, least in (("lora_rank", 0), ("lora_alpha", 1)):
            if getattr(self, key) < least:
                raise InputError(f"transformer.{key}: must be at least {least}, is {getattr(self, key)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise InputError(f"transformer.device: must be auto, cpu, cuda or cuda:N, is {self.device!r}")
