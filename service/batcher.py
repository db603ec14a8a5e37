"""Predictions for texts that come at the same time are made in one go, for much of the cost is per call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.collection import Collection
from index.fields import Fields
from index.label_filter import LabelFilter
from index.ranking import Predictions
from index.snapshot import Snapshot

# More texts than this in one request, or more values of their fields, are predicted on a thread, so that others need
# not wait for them.
_FEW = 8
_FEW_VALUES = 1000
# Texts after which those that came together are predicted, before the network is looked at again.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Ranked:
    """The ranked labels of n texts, their calibrated probabilities (n, k) float32, and the state they come from."""

    snapshot: Snapshot
    predictions: Predictions
    probabilities: NDArray[np.float32]

    def part(self, start: int, stop: int) -> Ranked:
        """Of the texts from `start` to before `stop`."""
        rows, scores = self.predictions.rows[start:stop], self.predictions.scores[start:stop]
        return Ranked(self.snapshot, Predictions(rows, scores), self.probabilities[start:stop])


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    texts: Sequence[str]
    fields: Sequence[Fields | None]
    k: int
    only: LabelFilter | None
    answer: asyncio.Future[Ranked]


class Batcher:
    """Predicts from a collection for one event loop; large requests go to `threads`.

    Small ones stay on the loop: beside a busy loop a thread gets the interpreter lock too late and too seldom.
    """

    def __init__(self, collection: Collection, threads: Executor) -> None:
        self._collection = collection
        self._threads = threads
        self._waiting: list[_Waiting] = []

    async def predict(
        self,
        texts: Sequence[str],
        k: int,
        fields: Sequence[Fields | None] | None = None,
        only: LabelFilter | None = None,
    ) -> Ranked:
        """The k best labels of each text, from one snapshot; fields: those of each text, None for none at all.

        only: the labels that may be shown, None for all of them.
        """
        loop = asyncio.get_running_loop()
        said = [None] * len(texts) if fields is None else fields
        if not are_few(said):
            return await loop.run_in_executor(self._threads, _rank, self._collection.snapshot, texts, said, k, only)
        waiting = _Waiting(texts, said, k, only, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            loop.call_soon(self._gather, 1)
        return await waiting.answer

    def _gather(self, before: int) -> None:
        """Predict, unless the last look at the network brought more: then the next one may, too."""
        loop = asyncio.get_running_loop()
        if before < len(self._waiting) < _TOGETHER:
            loop.call_soon(self._gather, len(self._waiting))
            return
        _answer(self._collection.snapshot, self._take())
        if self._waiting:
            loop.call_soon(self._gather, len(self._waiting))

    def _take(self) -> list[_Waiting]:
        """Who has waited longest, with those that ask for as many of the same labels: scores may depend on how many."""
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        texts = 0
        first = self._waiting[0] if self._waiting else None
        for one in self._waiting:
            if first is not None and (one.k, one.only) == (first.k, first.only) and texts < _TOGETHER:
                taken.append(one)
                texts += len(one.texts)
            else:
                left.append(one)
        self._waiting = left
        return taken


def are_few(fields: Sequence[Fields | None]) -> bool:
    """Whether texts with these fields are little enough to be looked at on the event loop."""
    values = sum(len(one) if isinstance(one, list) else 1 for said in fields for one in (said or {}).values())
    return len(fields) <= _FEW and values <= _FEW_VALUES


def _answer(snapshot: Snapshot, together: Sequence[_Waiting]) -> None:
    # A caller that has gone has cancelled its answer.
    asking = [one for one in together if not one.answer.done()]
    if not asking:
        return
    try:
        texts, fields = [text for one in asking for text in one.texts], [said for one in asking for said in one.fields]
        ranked = _rank(snapshot, texts, fields, asking[0].k, asking[0].only)
    except Exception as error:
        for one in asking:
            one.answer.set_exception(error)
        return
    start = 0
    for one in asking:
        one.answer.set_result(ranked.part(start, start + len(one.texts)))
        start += len(one.texts)


def _rank(
    snapshot: Snapshot, texts: Sequence[str], fields: Sequence[Fields | None], k: int, only: LabelFilter | None
) -> Ranked:
    predictions = snapshot.predict(texts, k, fields, only)
    return Ranked(snapshot, predictions, snapshot.probabilities(predictions))
