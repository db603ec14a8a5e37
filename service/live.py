"""The collection that a running service answers from: opened, followed, written to, closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import faiss
from starlette.requests import Request

from index.changes import LabelChange, PutLabel, RemoveLabel
from index.collection import Collection
from index.errors import first_line
from service.batcher import Batcher
from service.errors import BEHIND, NOT_READY, ProblemError
from service.settings import Settings

T = TypeVar("T")
# How often the log is looked at while somebody waits for a change.
_WAITING_SECONDS = 0.02
_log = logging.getLogger("labelspace.service")


@dataclass(frozen=True, slots=True)
class _Open:
    """One thread each: changes are stored one after another anyway, and batches shall leave a core to single texts."""

    collection: Collection
    batcher: Batcher
    writer: ThreadPoolExecutor
    batches: ThreadPoolExecutor
    bundles: ThreadPoolExecutor
    followers: tuple[_Follower, ...]


class LiveCollection:
    """What the routes use; each method raises ProblemError (503) before the collection is open and after its end.

    A collection given as a path is opened and closed here; one given open stays open.
    """

    def __init__(self, source: Path | Collection, settings: Settings) -> None:
        self.settings = settings
        self._source = source
        self._state: _Open | None = None

    async def open(self) -> None:
        """Get ready to answer. Raises BundleError when the collection cannot be opened."""
        # Requests are what runs at the same time here; threads inside one search would only fight for the cores.
        faiss.omp_set_num_threads(1)
        source = self._source
        collection = source if isinstance(source, Collection) else await asyncio.to_thread(self._open, source)
        writer, batches = ThreadPoolExecutor(1, "labels"), ThreadPoolExecutor(1, "batches")
        # On a thread of its own: it takes as long as a start, and writes shall not wait for it.
        bundles = ThreadPoolExecutor(1, "bundles")
        seconds = self.settings.follow_seconds
        followers = (
            _Follower(lambda: collection.refresh(), writer, seconds, "changes of other processes cannot be read"),
            _Follower(lambda: collection.follow_bundle(), bundles, seconds, "a promoted bundle cannot be opened"),
        )
        self._state = _Open(collection, Batcher(collection, batches), writer, batches, bundles, followers)

    async def close(self) -> None:
        """Let what is under way end, then close what was opened here."""
        state, self._state = self._now, None
        for follower in state.followers:
            await follower.stop()
        for threads in (state.batches, state.writer, state.bundles):
            threads.shutdown()
        if state.collection is not self._source:
            await asyncio.to_thread(state.collection.close)

    @property
    def collection(self) -> Collection:
        """The open collection."""
        return self._now.collection

    @property
    def batcher(self) -> Batcher:
        """Predicts from the open collection."""
        return self._now.batcher

    async def in_batch_thread(self, work: Callable[[], T]) -> T:
        """Do what would hold up other requests on the thread for large ones."""
        return await asyncio.get_running_loop().run_in_executor(self._now.batches, work)

    async def put(self, label: PutLabel) -> tuple[int, bool]:
        """Store a label; returns the number of the change, and whether the label is new."""
        now = self._now
        return await asyncio.get_running_loop().run_in_executor(now.writer, _put, now.collection, label)

    async def remove(self, label: str) -> int:
        """Remove a label; returns the number of the change."""
        return await self.write(RemoveLabel(label))

    async def write(self, change: LabelChange) -> int:
        """Store a change; returns its number. It is searchable then."""
        now, changes = self._now, [change]
        return (await asyncio.get_running_loop().run_in_executor(now.writer, now.collection.write, changes))[0]

    async def reached(self, change: int, seconds: float) -> bool:
        """Wait until this change is searchable here, at most so many seconds; returns whether it is."""
        now = self._now
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while now.collection.snapshot.change < change:
            if loop.time() >= until:
                return False
            # All who wait share the looks of one follower: none asks the log by itself.
            with suppress(TimeoutError):
                await asyncio.wait_for(now.followers[0].look(), until - loop.time())
        return True

    async def reach(self, change: int) -> None:
        """Wait until this change is searchable here. Raises ProblemError (503) when it takes too long."""
        if not await self.reached(change, self.settings.change_seconds):
            newest = self.collection.snapshot.change
            raise ProblemError(BEHIND, f"change {change} has not arrived here yet, {newest} has; try again soon")

    def _open(self, folder: Path) -> Collection:
        return Collection(folder, log=self.settings.log, device=self.settings.device)

    @property
    def _now(self) -> _Open:
        if self._state is None:
            raise ProblemError(NOT_READY, "the collection is not open; try again soon")
        return self._state


class _Follower:
    """Does something again and again on a thread, sooner when somebody waits for it; a failure is logged once."""

    def __init__(self, work: Callable[[], object], thread: ThreadPoolExecutor, seconds: float, failed: str) -> None:
        self._work, self._thread, self._seconds, self._failed = work, thread, seconds, failed
        self._wanted = asyncio.Event()
        self._looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._follow())

    async def look(self) -> None:
        """Have a look taken soon; returns after it."""
        self._wanted.set()
        await asyncio.shield(self._looked)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        failure = ""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._seconds)
                await asyncio.sleep(min(_WAITING_SECONDS, self._seconds))
            self._wanted.clear()
            looked, self._looked = self._looked, loop.create_future()
            try:
                await loop.run_in_executor(self._thread, self._work)
                failure = ""
            except Exception as error:
                if failure != (failure := first_line(error)):
                    _log.exception("%s; still trying", self._failed)
            finally:
                looked.set_result(None)


def live(request: Request) -> LiveCollection:
    """The collection that this request's application serves."""
    found: LiveCollection = request.app.state.live
    return found


def _put(collection: Collection, label: PutLabel) -> tuple[int, bool]:
    collection.refresh()
    new = collection.snapshot.labels.find(label.id) is None
    return collection.write([label])[0], new
