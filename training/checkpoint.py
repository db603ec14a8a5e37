"""A run's state on disk: every tensor and the position, replaced in one step, never pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from index.errors import BundleError, LabelspaceError, first_line
from index.files import replacing

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
_FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the learning curve: mean loss since the last point, and the dev figures (percent) if measured."""

    epoch: int
    step: int
    seconds: float
    loss: float
    dev: dict[str, float]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: the next batch is (epoch, step); `seconds` of training so far; the curve up to here.

    loss_sum: of the steps of this epoch so far.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    curve: tuple[Point, ...] = ()


def save_checkpoint(run: Path, tensors: Mapping[str, Tensor], position: Position) -> None:
    """Replace the run's checkpoint. Raises LabelspaceError (disk full and the like); the old one then stays."""
    meta = {"format": _FORMAT, "position": json.dumps(asdict(position))}
    with replacing(run / CHECKPOINT) as beside:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, meta)
        except SafetensorError as error:
            raise LabelspaceError(f"{run / CHECKPOINT}: could not be written ({first_line(error)})") from error


def keep_best(run: Path) -> None:
    """Let the checkpoint as it is now be the run's best one, too: another name for the same bytes, not a copy."""
    with replacing(run / BEST) as beside:
        beside.unlink()
        beside.hardlink_to(run / CHECKPOINT)


def load_best(run: Path, part: str = "") -> tuple[dict[str, Tensor], Position]:
    """The tensors and position of a run's best epoch by dev; of its last checkpoint where none was kept.

    part: what their names have in them, where not all are needed.
    """
    return _load(run / (BEST if (run / BEST).is_file() else CHECKPOINT), part)


def load_checkpoint(run: Path) -> tuple[dict[str, Tensor], Position]:
    """The tensors and position of a run. Raises BundleError when there is no checkpoint or it is damaged."""
    return _load(run / CHECKPOINT)


def _load(path: Path, part: str = "") -> tuple[dict[str, Tensor], Position]:
    if not path.is_file():
        raise BundleError(f"{path}: there is no checkpoint yet; train the run first")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            if meta.get("format") != _FORMAT:
                raise BundleError(f"{path}: checkpoint of format {meta.get('format')}; this program reads {_FORMAT}")
            values = json.loads(meta["position"])
            tensors = {name: file.get_tensor(name) for name in file.keys() if part in name}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: is damaged ({first_line(error)}); train the run again") from error
    curve = tuple(Point(**point) for point in values["curve"])
    return tensors, Position(**{**values, "curve": curve})
