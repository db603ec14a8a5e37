"""A collection, opened: its current bundle with all changes since, written to, followed, sealed, swapped."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from types import TracebackType

from index.bundle import Bundle
from index.bundles import current_bundle
from index.card_index import place as on_device
from index.change_check import check_changes
from index.change_log import open_log
from index.changes import Change, LabelChange, PutLabel, decode, encode
from index.collection_folder import check_collection
from index.device import CPU, Device
from index.errors import LabelspaceError, LogMovedError, first_line
from index.layered import LayeredIndex
from index.snapshot import Snapshot

# Replayed in blocks, so that the texts of a long log are not all in memory at once; an example counts as a label does.
_BLOCK = 1 << 16
_LONG = 4096
# How often a write may be overtaken by another process' before it gives up.
_OVERTAKEN = 1000
_POLL_SECONDS = 0.05
# A process that writes and ends at once need not wait for an index that nobody will search.
_BEFORE_SEALING_SECONDS = 0.25
# A bundle that could not be opened is tried again, but not at every look: each reads all of its bytes.
_TRY_AGAIN_SECONDS = 60.0
_log = logging.getLogger("labelspace.index")


@dataclass(frozen=True, slots=True)
class _NotOpened:
    """The bundle that could not be opened last, why, and when to try it again."""

    name: str = ""
    why: str = ""
    again: float = 0.0


class Collection:
    """An opened collection. `snapshot` may be read from any thread; writes take their turn."""

    def __init__(self, folder: Path, *, log: str | None = None, device: Device = CPU) -> None:
        """Open the collection in `folder` with its current bundle and all logged changes.

        log: URL of the PostgreSQL database that keeps the changes, None for LABELSPACE_LOG or a file in the folder.
        device: where the label index is searched (index.device).
        Raises BundleError when there is none, when a newer version wrote it, or when a byte of its bundle changed;
        InputError for a URL or device that is none; LabelspaceError when the log cannot be reached.
        """
        check_collection(folder)
        self.folder = folder
        self.device = device.usable(_log.warning)
        # Who holds the first may take the second, never the other way round.
        self._following, self._lock = threading.Lock(), threading.Lock()
        self._moved = threading.Condition()
        self._closing = threading.Event()
        self._sealing: threading.Thread | None = None
        self._not_opened = _NotOpened()
        place = current_bundle(folder)
        self._log = open_log(folder, log)
        try:
            self.snapshot = self._replayed(self._open(place))
        except BaseException:
            self._log.close()
            raise
        self._seal_if_wanted()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the log, once threads of the collection have ended."""
        self._closing.set()
        with self._following, self._lock:
            sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.join()
        self._log.close()

    @property
    def read_only(self) -> bool:
        """Whether its log lies where nothing can be written."""
        return self._log.read_only

    def write(self, changes: Sequence[LabelChange]) -> list[int]:
        """Store these changes durably, all or none, then make them searchable; returns their numbers in the log.

        Raises InputError for a change that makes no sense, UnknownLabelError for one about a label that is not there,
        LabelspaceError when they cannot be stored. In all these cases nothing has changed.
        """
        with self._lock:
            numbers = self._append(changes)
            # As a reader of the log gets them, without asking it: what is stored must not fail any more.
            place = self._log.place
            stored = [
                Change(number, decode(place, number, *encode(change)))
                for number, change in zip(numbers, changes, strict=True)
            ]
            self._take(_after(self.snapshot, stored))
        return numbers

    def refresh(self) -> int:
        """Take over what other processes have logged; returns the number of the newest change."""
        with self._lock:
            self._take(self._replayed(self.snapshot))
            return self.snapshot.change

    def reached(self, change: int, seconds: float) -> bool:
        """Wait until this change is searchable, at most so many seconds; returns whether it is."""
        until = time.monotonic() + seconds
        while self.snapshot.change < change:
            left = until - time.monotonic()
            if self._lock.acquire(timeout=max(left, 0)):
                try:
                    self._take(self._replayed(self.snapshot))
                finally:
                    self._lock.release()
            if self.snapshot.change < change:
                if left <= 0:
                    return False
                with self._moved:
                    self._moved.wait(min(left, _POLL_SECONDS))
        return True

    def follow_bundle(self) -> bool:
        """Open a newly promoted bundle beside the one that is served, replay the log on it, and swap; whether it did.

        Readers and writers go on meanwhile. When it cannot be opened, that is raised once, the old one is served on,
        and it is tried again once in a while.
        """
        with self._following:
            place = current_bundle(self.folder)
            if self._closing.is_set() or place.name == self.snapshot.bundle.folder.name:
                return False
            before = self._not_opened
            if before.name == place.name and time.monotonic() < before.again:
                return False
            try:
                fresh = self._replayed(self._open(place))
                with self._lock:
                    self._take(self._replayed(fresh))
            except Exception as error:
                why = first_line(error)
                self._not_opened = _NotOpened(place.name, why, time.monotonic() + _TRY_AGAIN_SECONDS)
                if (before.name, before.why) == (place.name, why):
                    return False
                raise
            self._not_opened = _NotOpened()
        return True

    def _open(self, place: Path) -> Snapshot:
        bundle = Bundle.open(place)
        bundle = replace(bundle, index=on_device(bundle.index, self.device))
        return Snapshot.of(bundle)

    def _append(self, changes: Sequence[LabelChange]) -> list[int]:
        """Check against the newest state and append to just that one: two processes may write at once."""
        for _ in range(_OVERTAKEN):
            self._take(self._replayed(self.snapshot))
            check_changes(self.snapshot, changes)
            try:
                return self._log.append(changes, after=self.snapshot.change)
            except LogMovedError:
                continue
        raise LabelspaceError(f"{self._log.place}: other processes write all the time; the change was not stored")

    def _replayed(self, snapshot: Snapshot) -> Snapshot:
        # Without one query more for the many times when there is nothing, or little, to replay.
        changes = self._log.since(snapshot.change)
        begin = list(islice(changes, _LONG))
        if len(begin) < _LONG:
            return _after(snapshot, begin)
        with _no_garbage_collection():
            return _after(snapshot, chain(begin, changes))

    def _take(self, snapshot: Snapshot) -> None:
        """Serve this state from now on; the caller holds the lock (or nobody else knows of the collection)."""
        if snapshot is self.snapshot:
            return
        self.snapshot = snapshot
        with self._moved:
            self._moved.notify_all()
        self._seal_if_wanted()

    def _seal_if_wanted(self) -> None:
        if self._sealing is None and not self._closing.is_set() and _wanting(self.snapshot):
            self._sealing = threading.Thread(target=self._seal, name="sealing")
            self._sealing.start()

    def _seal(self) -> None:
        """Build an index over what was added, beside readers and writers, until nothing is left to build."""
        while not self._closing.wait(_BEFORE_SEALING_SECONDS):
            with self._lock:
                old = self.snapshot
                views = _wanting(old)
                if not views:
                    self._sealing = None
                    return
            try:
                sealed = {name: view.sealed() for name, view in views.items()}
            except Exception:
                # The thread is remembered, so that no other one fails the same way.
                _log.exception("what was added cannot be indexed; it is searched one by one")
                return
            with self._lock:
                # What was built belongs to another bundle's rows when that was swapped meanwhile.
                if self.snapshot.bundle is old.bundle:
                    now = self.snapshot
                    later = {name: getattr(now, name).with_sealed(part) for name, part in sealed.items()}
                    self.snapshot = replace(now, **later)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """What a replay makes stays; to look through it for garbage again and again takes as long as the replay itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _wanting(snapshot: Snapshot) -> dict[str, LayeredIndex]:
    views = {"index": snapshot.index, "memory": snapshot.memory}
    return {name: view for name, view in views.items() if view is not None and view.wants_sealing()}


def _after(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    for block in _blocks(changes):
        snapshot = snapshot.after(block)
    return snapshot


def _blocks(changes: Iterable[Change]) -> Iterator[list[Change]]:
    block: list[Change] = []
    size = 0
    for change in changes:
        block.append(change)
        size += 1 + (len(change.what.examples) if isinstance(change.what, PutLabel) else 0)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
