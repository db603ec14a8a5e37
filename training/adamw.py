"""AdamW's state as named tensors, for checkpoints without pickle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def adamw_tensors(optimiser: torch.optim.AdamW, names: Sequence[str]) -> dict[str, Tensor]:
    """The optimiser's state by parameter name, as plain tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"adamw.{name}.{key}": torch.as_tensor(value)
        for place, name in enumerate(names)
        for key, value in state.get(place, {}).items()
    }


def restore_adamw(optimiser: torch.optim.AdamW, names: Sequence[str], tensors: dict[str, Tensor]) -> None:
    state = optimiser.state_dict()
    for place, name in enumerate(names):
        prefix = f"adamw.{name}."
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if found:
            state["state"][place] = found
    optimiser.load_state_dict(state)
