from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from index import Collection
from index.fields import Fields
from index.label_filter import LabelFilter
from index.ranking import Predictions
from index.snapshot import Snapshot
from service.batcher import Batcher, Ranked, are_few
from tests_support import KINDS


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


def test_queries_with_different_fields_in_one_batch_are_answered_as_each_alone(field_collection: Path) -> None:
    said: list[Fields | None] = [
        None,
        {},
        {"type": "film"},
        {"lang": ["fr", "en"]},
        {"type": KINDS, "lang": "fr"},
        {"type": None},
        {"type": "new"},
    ]
    texts = ["the same for all", "", "größe 日本", "the same for all", "", "x" * 5000, ""]
    with Collection(field_collection) as collection:
        sizes: list[int] = []
        snapshot = collection.snapshot

        async def ask_all() -> list[Ranked]:
            with ThreadPoolExecutor(1) as threads:
                noting = SimpleNamespace(snapshot=_Noting(snapshot, sizes))
                batcher = Batcher(cast(Collection, noting), threads)
                pairs = zip(texts, said, strict=True)
                return await asyncio.gather(*(batcher.predict([text], 5, [fields]) for text, fields in pairs))

        answers = asyncio.run(ask_all())
        assert sizes == [len(texts)]
        for text, fields, ranked in zip(texts, said, answers, strict=True):
            alone = snapshot.predict([text], 5, [fields])
            np.testing.assert_array_equal(ranked.predictions.rows, alone.rows)
            np.testing.assert_allclose(ranked.predictions.scores, alone.scores, atol=2e-6)


@pytest.mark.parametrize(
    ("fields", "few"),
    [
        ([], True),
        ([None] * 8, True),
        ([None] * 9, False),
        ([{"type": ["x"] * 999, "lang": "y"}], True),
        ([{"type": ["x"] * 999}, {"lang": ["y", "z"]}], False),
    ],
)
def test_many_texts_or_values_are_not_looked_at_on_the_loop(fields: list[Fields | None], few: bool) -> None:
    assert are_few(fields) == few


@dataclass(frozen=True)
class _Noting:
    """A snapshot that notes how many texts come at once."""

    snapshot: Snapshot
    sizes: list[int]

    def predict(
        self, texts: Sequence[str], k: int, fields: Sequence[Fields | None], only: LabelFilter | None
    ) -> Predictions:
        self.sizes.append(len(texts))
        return self.snapshot.predict(texts, k, fields, only)

    def probabilities(self, predictions: Predictions) -> Any:
        return self.snapshot.probabilities(predictions)


class _Stub:
    """Stands for a snapshot that fails on the text "bad" and notes how many texts come at once."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(
        self, texts: Sequence[str], k: int, fields: Sequence[Fields | None], only: LabelFilter | None
    ) -> Predictions:
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
