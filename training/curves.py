"""Learning curves for TensorBoard, where they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from index.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_EVERY = 10


class Curves:
    """Loss and rate of every tenth step, and dev figures, under `run`/tensorboard; nothing without a run."""

    def __init__(self, run: Path | None, step: int) -> None:
        """step: steps done before; what an interrupted run wrote after them is dropped from view.

        Raises InputError when the tensorboard package is not installed.
        """
        self._step = step
        self._writer: SummaryWriter | None = None
        if run is None:
            return
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs its package: pip install 'labelspace[report]'") from error
        self._writer = SummaryWriter(run / "tensorboard", purge_step=step)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, loss: float, rate: float) -> None:
        """One step's loss, and its share of the configured rates."""
        self._step += 1
        if self._writer is not None and self._step % _EVERY == 0:
            self._writer.add_scalar("loss", loss, self._step)
            self._writer.add_scalar("rate", rate, self._step)

    def dev(self, figures: Mapping[str, float]) -> None:
        """Figures measured on dev after the last step."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"dev/{name}", value, self._step)
            self._writer.flush()
