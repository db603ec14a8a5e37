"""The collection that a running service answers from: opened, followed, written to, closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import faiss
from starlette.requests import Request

from index.changes import PutLabel, RemoveLabel
from index.collection import Collection
from index.errors import first_line
from service.batcher import Batcher
from service.errors import NOT_READY, ProblemError
from service.settings import Settings

T = TypeVar("T")
_log = logging.getLogger("labelspace.service")


@dataclass(frozen=True, slots=True)
class _Open:
    """One thread each: changes are stored one after another anyway, and batches shall leave a core to single texts."""

    collection: Collection
    batcher: Batcher
    writer: ThreadPoolExecutor
    batches: ThreadPoolExecutor
    following: asyncio.Task[None]


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
        collection = source if isinstance(source, Collection) else await asyncio.to_thread(Collection, source)
        writer, batches = ThreadPoolExecutor(1, "labels"), ThreadPoolExecutor(1, "batches")
        following = asyncio.create_task(_follow(collection, writer, self.settings.follow_seconds))
        self._state = _Open(collection, Batcher(collection, batches), writer, batches, following)

    async def close(self) -> None:
        """Let what is under way end, then close what was opened here."""
        state, self._state = self._now, None
        state.following.cancel()
        state.batches.shutdown()
        state.writer.shutdown()
        if state.collection is not self._source:
            state.collection.close()

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
        now, removal = self._now, [RemoveLabel(label)]
        return (await asyncio.get_running_loop().run_in_executor(now.writer, now.collection.write, removal))[0]

    @property
    def _now(self) -> _Open:
        if self._state is None:
            raise ProblemError(NOT_READY, "the collection is not open; try again soon")
        return self._state


def live(request: Request) -> LiveCollection:
    """The collection that this request's application serves."""
    found: LiveCollection = request.app.state.live
    return found


async def _follow(collection: Collection, writer: ThreadPoolExecutor, seconds: float) -> None:
    """Take over what other processes log, again and again; a failure is logged once and tried again."""
    failure = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.get_running_loop().run_in_executor(writer, collection.refresh)
            failure = ""
        except Exception as error:
            if failure != (failure := first_line(error)):
                _log.exception("changes of other processes cannot be read; still trying")


def _put(collection: Collection, label: PutLabel) -> tuple[int, bool]:
    collection.refresh()
    new = collection.snapshot.labels.find(label.id) is None
    return collection.write([label])[0], new
