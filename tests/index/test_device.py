"""Which device is meant, what is missing for it, and which FAISS is installed; the drivers here are stand-ins."""

from __future__ import annotations

import ctypes
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import faiss
import pytest

from index import device
from index.device import Device, faiss_distribution, faiss_versions, free_bytes, missing_for_cuda
from index.errors import InputError, LabelspaceError


class Driver:
    """What libcuda answers: the code of its start, and how many cards."""

    def __init__(self, code: int = 0, cards: int = 1) -> None:
        self.code, self.cards = code, cards

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - its name
        count._obj.value = self.cards
        return 0


class Runtime:
    """What libcudart answers, and which card the calling thread has."""

    def __init__(self, free: dict[int, int], current: int = 0) -> None:
        self.free, self.current = free, current

    def cudaGetDevice(self, number: Any) -> int:  # noqa: N802 - its name
        number._obj.value = self.current
        return 0

    def cudaSetDevice(self, number: int) -> int:  # noqa: N802 - its name
        if number not in self.free:
            return 101
        self.current = number
        return 0

    def cudaMemGetInfo(self, free: Any, total: Any) -> int:  # noqa: N802 - its name
        free._obj.value = self.free[self.current]
        return 0


def with_cards(monkeypatch: pytest.MonkeyPatch, cards: int, driver: Driver | None = None) -> None:
    """As with faiss-gpu on a machine with so many cards, as far as the choice of a device asks."""
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: cards)
    found = driver or Driver(cards=cards)
    monkeypatch.setattr(device, "_library", lambda name: found if name == "libcuda.so.1" else None)


def installed(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def look_up(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(device, "version", look_up)


@pytest.mark.parametrize(
    ("text", "kind", "cards", "back"),
    [
        ("cpu", "cpu", (), "cpu"),
        ("auto", "auto", (), "auto"),
        ("cuda", "cuda", (0,), "cuda:0"),
        ("cuda:3", "cuda", (3,), "cuda:3"),
        ("cuda:1,0", "cuda", (1, 0), "cuda:1,0"),
    ],
)
def test_a_device_is_read_and_written(text: str, kind: str, cards: tuple[int, ...], back: str) -> None:
    found = Device.parse(text)
    assert (found.kind, found.cards, str(found)) == (kind, cards, back)
    assert not found.fp16 and not found.sharded
    assert Device.parse(back) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "CPU", "gpu", "cuda:", "cuda:a", "cuda:-1", "cuda:0,", "cuda:0,0", "cuda:0 ,1", "cpu:0", "auto:1"),
        *("cuda:\u0661", "cuda:" + "9" * 40, " cuda", "cuda:0:1", "cuda:0\n"),
    ],
)
def test_what_is_no_device_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^device ") as raised:
        Device.parse(text)
    assert "\n" not in str(raised.value)


def test_options_need_cards_to_apply_to() -> None:
    assert Device.parse("cuda:0,1", fp16=True, sharded=True) == Device("cuda", (0, 1), fp16=True, sharded=True)
    assert Device.parse("auto", fp16=True).fp16
    for text, options in (("cpu", {"fp16": True}), ("cpu", {"sharded": True}), ("cuda:1", {"sharded": True})):
        with pytest.raises(InputError, match=r"device"):
            Device.parse(text, **options)


def test_the_processor_is_always_there() -> None:
    said: list[str] = []
    assert Device.parse("cpu").usable(said.append) == Device("cpu")
    assert said == []


def test_without_cuda_in_faiss_the_error_names_it_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has CUDA")
    with pytest.raises(InputError, match=r"^device cuda:0: faiss-cpu .* without CUDA: .*labelspace\[gpu\]"):
        Device.parse("cuda").usable(print)
    installed(monkeypatch, {"faiss-cpu": "1", "faiss-gpu": "1"})
    with pytest.raises(InputError, match=r"device cuda:0: faiss-cpu and faiss-gpu are installed"):
        Device.parse("cuda").usable(print)


def test_auto_falls_to_the_processor_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 0, Driver(cards=0))
    said: list[str] = []
    assert Device.parse("auto", fp16=True).usable(said.append) == Device("cpu")
    assert len(said) == 1 and said[0].startswith("device cpu: the NVIDIA driver shows no card")


def test_auto_takes_the_first_card_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 4)
    said: list[str] = []
    assert Device.parse("auto", fp16=True).usable(said.append) == Device("cuda", (0,), fp16=True)
    assert said == ["device cuda:0"]


def test_a_missing_driver_is_told_before_faiss_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 1)
    monkeypatch.setattr(device, "_library", lambda name: None)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: pytest.fail("some versions end the process here"))
    assert "no NVIDIA driver" in (missing_for_cuda() or "")


@pytest.mark.parametrize("driver", [Driver(code=100), Driver(code=999), Driver(cards=0)])
def test_a_driver_that_shows_no_card_is_told(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    with_cards(monkeypatch, 1, driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "shows no card (CUDA_VISIBLE_DEVICES is '')" in (missing_for_cuda() or "")


@pytest.mark.parametrize(("count", "text"), [(1, "only card 0 is"), (4, "cards 0 to 3 are")])
def test_a_card_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, count: int, text: str) -> None:
    with_cards(monkeypatch, count)
    assert Device.parse("cuda:0").usable(print).cards == (0,)
    with pytest.raises(InputError, match=f"there is no card 4; {text} visible"):
        Device.parse("cuda:0,4,9").usable(print)


def test_free_memory_is_asked_of_the_card_and_the_threads_card_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime({0: 5, 1: 1 << 40}, current=0)
    monkeypatch.setattr(device, "_library", lambda name: runtime if name == "libcudart.so.12" else None)
    assert free_bytes(1) == 1 << 40
    assert runtime.current == 0
    assert free_bytes(7) is None
    monkeypatch.setattr(device, "_library", lambda name: None)
    assert free_bytes(0) is None


def test_a_library_that_is_not_there_is_none() -> None:
    assert device._library("libnosuchthing.so.1") is None
    assert isinstance(device._library("libc.so.6"), ctypes.CDLL)


def test_the_one_installed_faiss_is_found() -> None:
    name, number = faiss_distribution()
    assert number == version(name) and faiss_versions() == {name: number}


def test_two_or_no_distributions_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {"faiss-gpu": "1.15.1"})
    assert faiss_distribution() == ("faiss-gpu", "1.15.1")
    installed(monkeypatch, {"faiss-gpu": "1.15.1", "faiss-cpu": "1.12.0"})
    assert faiss_versions() == {"faiss-cpu": "1.12.0", "faiss-gpu": "1.15.1"}
    with pytest.raises(
        LabelspaceError, match=r"faiss-cpu and faiss-gpu are installed .* pip uninstall faiss-cpu faiss-gpu"
    ):
        faiss_distribution()
    installed(monkeypatch, {})
    with pytest.raises(LabelspaceError, match=r"FAISS is not installed: pip install 'labelspace\[cpu\]'"):
        faiss_distribution()
