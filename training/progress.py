"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

_EVERY_SECONDS = 15.0


class Progress:
    """Counts `total` units of work on standard error; use as a context manager."""

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self._done, self._start = done, done
        self._began = self._spoke = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit=unit, desc=what) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, units: int, note: str = "") -> None:
        """Say that `units` more are done; `note` (such as the loss) goes beside the rate."""
        self._done += units
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
            return
        now = time.monotonic()
        if now - self._spoke >= _EVERY_SECONDS:
            self._spoke = now
            rate = (self._done - self._start) / max(now - self._began, 1e-9)
            left = (self.total - self._done) / max(rate, 1e-9)
            line = f"{self.what}: {self._done}/{self.total} {self.unit}, {rate:.0f} {self.unit}/s, {left:.0f} s left"
            self.say(f"{line}  {note}".rstrip())

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the command line's progress
