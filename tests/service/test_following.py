"""A running service takes over promoted bundles, and waits for changes that an answer has to know of."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from index.bundle import read_manifest, write_manifest
from index.bundles import current_bundle, promote, rollback
from index.changes import Feedback, PutLabel
from index.collection import Collection
from service import create_app
from service.errors import ProblemError
from service.live import LiveCollection
from service.settings import Settings

QUICK = Settings(follow_seconds=0.02)


def copy_bundle(collection: Path, name: str) -> Path:
    source = current_bundle(collection)
    place = Path(shutil.copytree(source, source.with_name(name)))
    write_manifest(place, replace(read_manifest(place), bundle=name))
    return place


def wait_for_bundle(client: TestClient, name: str) -> None:
    until = time.monotonic() + 20
    while client.get("/v1/info").json()["bundle"] != name:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_promoted_bundle_is_served_without_a_restart_and_a_rollback_too(collection: Path) -> None:
    first = current_bundle(collection).name
    copy_bundle(collection, "0002-b")
    with TestClient(create_app(collection, QUICK)) as client:
        client.put("/v1/labels/flute", json={"text": "quantum flute"})
        for act, name in ((lambda: promote(collection, "0002-b"), "0002-b"), (lambda: rollback(collection), first)):
            act()
            wait_for_bundle(client, name)
            answer = client.post("/v1/predict", json={"inputs": [{"text": "a quantum flute"}]}).json()
            assert (answer["bundle"], answer["predictions"][0]["labels"][0]["id"]) == (name, "flute")
        assert client.put("/v1/labels/drum", json={"text": "drum"}).json()["change"] == 2


def test_a_promoted_bundle_that_is_damaged_is_told_once_and_the_old_one_goes_on(
    collection: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, place = current_bundle(collection).name, copy_bundle(collection, "0002-b")
    promote(collection, "0002-b")
    (collection / "current").write_text(f"{first}\n")
    (place / "vectors.npy").write_bytes(b"x")
    with TestClient(create_app(collection, QUICK)) as client:
        (collection / "current").write_text("0002-b\n")
        time.sleep(0.5)
        assert client.get("/v1/info").json()["bundle"] == first
        assert client.put("/v1/labels/drum", json={"text": "drum"}).status_code == 201
    told = [record for record in caplog.records if "promoted bundle cannot be opened" in record.getMessage()]
    assert len(told) == 1


def test_who_waits_for_a_change_of_another_process_gets_it_soon(collection: Path) -> None:
    async def scene() -> None:
        # Nobody would look by itself.
        live = LiveCollection(collection, Settings(follow_seconds=1000, change_seconds=0.05))
        await live.open()
        try:
            assert await live.reached(0, 0)
            assert not await live.reached(1, 0.05)
            with pytest.raises(ProblemError, match="change 1 has not arrived here yet, 0 has"):
                await live.reach(1)
            waiting = [asyncio.create_task(live.reached(2, 20)) for _ in range(5)]
            ticks = 0
            with Collection(collection) as other:
                other.write([PutLabel("flute", "quantum flute"), PutLabel("drum", "drum")])
            while not all(task.done() for task in waiting):
                ticks += 1
                await asyncio.sleep(0.001)
            assert [task.result() for task in waiting] == [True] * 5
            assert live.collection.snapshot.change == 2
            # The loop was free meanwhile.
            assert ticks > 1
            await live.reach(2)
            assert await live.write(Feedback("a drum kit", ("drum",))) == 3
            assert await live.remove("flute") == 4
        finally:
            await live.close()
        with pytest.raises(ProblemError, match="not open"):
            await live.write(Feedback("a drum kit", ("drum",)))

    asyncio.run(scene())


def test_it_ends_while_somebody_waits(collection: Path) -> None:
    async def scene() -> None:
        live = LiveCollection(collection, Settings(follow_seconds=0.01))
        await live.open()
        waiting = asyncio.create_task(live.reached(9, 0.2))
        await asyncio.sleep(0.02)
        await live.close()
        assert not await waiting

    asyncio.run(scene())
