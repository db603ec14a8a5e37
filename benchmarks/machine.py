"""What a figure was measured on, and commands run with their time and memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from index.device import faiss_versions

PACKAGES = ("labelspace", "numpy", "torch", "onnxruntime", "fastapi", "uvicorn")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall-clock seconds of a command and the peak resident memory of its process, in GB (10^9 bytes)."""

    seconds: float
    peak_gb: float


def describe() -> dict[str, Any]:
    """Machine, versions and commit."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "processor": model or platform.processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {**{name: version(name) for name in PACKAGES}, **faiss_versions()},
    }


def run(*arguments: str | Path) -> tuple[Cost, str]:
    """Run a labelspace verb in a process of its own; its cost and standard output. Stops the program when it fails."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    print("$ labelspace", *arguments, flush=True)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"labelspace {arguments[0]} failed with code {process.returncode}")
    return Cost(time.monotonic() - began, usage.ru_maxrss / 1e6), output


def costs(measured: dict[str, Cost]) -> dict[str, dict[str, float]]:
    return {name: {key: round(value, 2) for key, value in asdict(cost).items()} for name, cost in measured.items()}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
