"""The allocator: memory that was freed is not asked of the system again."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
    keep_freed_memory()
for turn in range(12):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, dtype=np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_arrays_reuse_their_pages() -> None:
    faults = {}
    for what in ("keep", "leave"):
        run = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, check=True)
        faults[what] = int(run.stdout)
    if faults["leave"] < 1000:
        pytest.skip("this C library keeps freed memory by itself")
    assert faults["keep"] < 0.1 * faults["leave"]
