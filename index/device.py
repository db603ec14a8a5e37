"""Where an index is searched: the processor or graphics cards; what is missing for these, and which FAISS is there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from index.errors import InputError, LabelspaceError

KINDS = ("cpu", "cuda", "auto")
# All of them install the one module `faiss`; the last is what conda calls it.
DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss")
INSTALL_CPU = "pip install 'labelspace[cpu]'"
INSTALL_GPU = "pip install 'labelspace[gpu]'"
_DRIVER = "libcuda.so.1"
_RUNTIMES = ("libcudart.so.12", "libcudart.so.13", "libcudart.so.11.0", "libcudart.so")


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` cpu, cuda or auto (not decided yet), and the numbers of the cards of cuda.

    fp16: copies of plain vectors on a card have 2 bytes a number. sharded: every card has its share of the vectors, in
    place of all of them.
    """

    kind: str
    cards: tuple[int, ...] = ()
    fp16: bool = False
    sharded: bool = False

    @classmethod
    def parse(cls, text: str, *, fp16: bool = False, sharded: bool = False) -> Device:
        """`cpu`, `auto`, `cuda` (the first card) or `cuda:0,1`; asks no driver. Raises InputError on anything else."""
        kind, colon, numbers = text.partition(":")
        if kind not in KINDS or (colon and kind != "cuda"):
            raise InputError(f"device {text!r}: write cpu, auto, cuda or cuda:0,1")
        cards = _card_numbers(text, numbers) if colon else (0,) if kind == "cuda" else ()
        if kind == "cpu" and (fp16 or sharded):
            raise InputError(
                f"device cpu: {'fp16' if fp16 else 'sharding'} is for graphics cards; name one, or leave it"
            )
        if sharded and len(cards) < 2:
            raise InputError(f"device {text}: sharding is over two cards or more, as in cuda:0,1")
        return cls(kind, cards, fp16, sharded)

    def __str__(self) -> str:
        return f"cuda:{','.join(map(str, self.cards))}" if self.kind == "cuda" else self.kind

    def usable(self, report: Callable[[str], None]) -> Device:
        """The same, known to be there; `auto` becomes the first card or, with a line to `report`, the processor.

        Raises InputError that says what is missing when cards were asked for and cannot be used.
        """
        if self.kind == "cpu":
            return self
        missing = missing_for_cuda()
        if self.kind == "auto":
            chosen = Device("cpu") if missing else replace(self, kind="cuda", cards=(0,))
            report(f"device {chosen}{f': {missing}' if missing else ''}")
            return chosen
        if missing:
            raise InputError(f"device {self}: {missing}")
        count = _count_cards()
        absent = [card for card in self.cards if card >= count]
        if absent:
            there = "only card 0 is" if count == 1 else f"cards 0 to {count - 1} are"
            raise InputError(f"device {self}: there is no card {absent[0]}; {there} visible")
        return self


CPU = Device("cpu")


def missing_for_cuda() -> str | None:
    """What stands between this machine and a search on a card, with what to do; None when nothing does."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        found = faiss_versions()
        if len(found) > 1:
            return _overwritten(found)
        named = " ".join(next(iter(found.items()), ("FAISS",)))
        return f"{named} is built without CUDA: pip uninstall faiss-cpu, then {INSTALL_GPU}"
    # Asked before FAISS is: some of its versions end the process where the driver is missing or too old.
    driver = _library(_DRIVER)
    if driver is None:
        return f"no NVIDIA driver is here ({_DRIVER} is not found); a container needs --gpus all"
    count = _count_cards() if _driver_answers(driver) else 0
    if count < 1:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        because = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        return f"the NVIDIA driver shows no card{because}: see what nvidia-smi says"
    return None


def free_bytes(card: int) -> int | None:
    """Memory free on a card, in bytes; None where the CUDA runtime does not say."""
    runtime = cuda_runtime()
    if runtime is None:
        return None
    before, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
    # The runtime answers for the calling thread's card, which the rest of the process may rely on.
    if runtime.cudaGetDevice(ctypes.byref(before)) or runtime.cudaSetDevice(card):
        return None
    try:
        failed = runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    finally:
        runtime.cudaSetDevice(before.value)
    return None if failed else int(free.value)


def cuda_runtime() -> Any:
    """The CUDA runtime's library, as ctypes has it; None where it is not there, or linked into FAISS itself."""
    return next((found for name in _RUNTIMES if (found := _library(name)) is not None), None)


def faiss_versions() -> dict[str, str]:
    """Versions of the installed distributions that bring the module `faiss`, by name; normally there is one."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def faiss_distribution() -> tuple[str, str]:
    """Name and version of the one installed FAISS, without importing it.

    Raises LabelspaceError where there is none, or more than one: these overwrite each other's files.
    """
    found = faiss_versions()
    if not found:
        raise LabelspaceError(f"FAISS is not installed: {INSTALL_CPU}, or for a graphics card {INSTALL_GPU}")
    if len(found) > 1:
        raise LabelspaceError(_overwritten(found))
    return next(iter(found.items()))


def _overwritten(found: dict[str, str]) -> str:
    return (
        f"{' and '.join(found)} are installed and overwrite each other: pip uninstall {' '.join(found)}, then "
        f"{INSTALL_CPU} or {INSTALL_GPU}"
    )


def _card_numbers(text: str, numbers: str) -> tuple[int, ...]:
    parts = numbers.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise InputError(f"device {text!r}: card numbers are 0, 1, …, with commas between them, as in cuda:0,1")
    cards = tuple(int(part) for part in parts)
    if len(set(cards)) < len(cards):
        raise InputError(f"device {text!r}: a card is named twice")
    return cards


def _count_cards() -> int:
    import faiss

    return int(faiss.get_num_gpus())


def _library(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _driver_answers(driver: Any) -> bool:
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
