from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from index import Collection
from index.fields import Fields
from index.ranking import Predictions
from service.batcher import Batcher


@pytest.fixture(scope="module")
def opened(tiny_collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    folder = shutil.copytree(tiny_collection, tmp_path_factory.mktemp("batcher") / "collection")
    with Collection(Path(folder)) as collection:
        yield collection


def test_each_caller_gets_its_own_answer(opened: Collection) -> None:
    asked = [
        ([f"{word} number {place}"] * (1 + place % 9), 1 + place % 4) for place, word in enumerate(["pie", "reef"] * 30)
    ]

    async def ask_all() -> list[Any]:
        with ThreadPoolExecutor(1) as threads:
            batcher = Batcher(opened, threads)
            return await asyncio.gather(*(batcher.predict(texts, k) for texts, k in asked))

    for (texts, k), ranked in zip(asked, asyncio.run(ask_all()), strict=True):
        expected = opened.snapshot.predict(texts, k)
        assert ranked.snapshot is opened.snapshot
        np.testing.assert_array_equal(ranked.predictions.rows, expected.rows)
        np.testing.assert_allclose(ranked.predictions.scores, expected.scores, atol=2e-6)
        np.testing.assert_allclose(ranked.probabilities, opened.snapshot.probabilities(expected), atol=2e-5)


class _Stub:
    """Stands for a snapshot that fails on the text "bad" and notes how many texts come at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, texts: Sequence[str], k: int, fields: Sequence[Fields | None]) -> Predictions:
        assert len(fields) == len(texts)
        self.calls.append(len(texts))
        if "bad" in texts:
            raise ValueError("bad text")
        return Predictions(np.zeros((len(texts), k), dtype=np.int64), np.ones((len(texts), k), dtype=np.float32))

    def probabilities(self, predictions: Predictions) -> Any:
        return predictions.scores


def test_what_comes_together_is_predicted_together_and_a_failure_does_not_stay() -> None:
    stub = _Stub()
    collection = cast(Collection, SimpleNamespace(snapshot=stub))

    async def use() -> None:
        with ThreadPoolExecutor(1) as threads:
            batcher = Batcher(collection, threads)
            await asyncio.gather(*(batcher.predict(["a"], 5) for _ in range(20)))
            assert stub.calls == [20]
            failed = await asyncio.gather(
                batcher.predict(["bad"], 5), batcher.predict(["a"], 3), return_exceptions=True
            )
            assert isinstance(failed[0], ValueError)
            assert not isinstance(failed[1], BaseException)
            leaving = asyncio.create_task(batcher.predict(["a"], 5))
            await asyncio.sleep(0)
            leaving.cancel()
            assert (await batcher.predict(["b", "c"], 5)).predictions.rows.shape == (2, 5)
            assert stub.calls[-1] == 2

    asyncio.run(use())
