"""Shards: the vectors that the towers give, once each, however often and by however many processes it is tried."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.bags import Bags
from index.bundle import Bundle
from index.bundles import current_bundle
from index.encode_shards import (
    SHARD_ROWS,
    Shard,
    Text,
    Tower,
    Towers,
    encode_shards,
    is_finished,
    item_shards,
    open_shard,
    read_texts,
    text_digest,
    text_shards,
    write_texts,
)
from index.errors import LabelspaceError
from index.features import Featurizer
from index.reindex_texts import ReadyEncoder

ODD: list[Text] = [
    ("zebra", None), ("", None), ("\ud800 lone", None), ("日本 料理", None), ("line\nbreak\u2028", None),
    ("long " * 3000, None), ("zebra", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tiny_collection: Path) -> Bundle:
    return Bundle.open(current_bundle(tiny_collection))


def towers_of(bundle: Bundle) -> Towers:
    return Towers(bundle.folder, bundle.manifest.features)


def noted(folder: Path, parts: list[tuple[Tower, list[Text]]]) -> list[Shard]:
    for number, (tower, texts) in enumerate(parts):
        write_texts(folder, number, tower, texts)
    return text_shards(folder)


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    texts: list[Text] = [*ODD, ("", {"type": ["a", 1, True, None], "größe": 1.5})]
    (shard,) = noted(tmp_path, [("label", texts)])
    assert isinstance(shard.source, Path)
    assert (shard.number, shard.tower, shard.rows) == (0, "label", len(texts))
    assert read_texts(shard.source) == texts
    assert text_shards(tmp_path / "nowhere") == []


@pytest.mark.parametrize("processes", [1, 2])
def test_the_vectors_are_those_of_the_towers(processes: int, bundle: Bundle, tmp_path: Path) -> None:
    parts: list[tuple[Tower, list[Text]]] = [("query", ODD), ("label", ODD[3:]), ("query", [("a", None)])]
    shards, told = noted(tmp_path / "texts", parts), list[int]()
    for _ in range(2):
        encode_shards(tmp_path / "to", shards, towers_of(bundle), processes=processes, advance=told.append)
    assert sum(told) == 2 * sum(len(texts) for _, texts in parts)
    for shard, (tower, texts) in zip(shards, parts, strict=True):
        encoder = bundle.queries if tower == "query" else bundle.label_texts
        wanted = encoder.texts([text for text, _ in texts])
        assert np.abs(open_shard(tmp_path / "to", shard.number) - wanted).max() < 1e-6


def test_items_are_encoded_in_their_order(bundle: Bundle, tmp_path: Path) -> None:
    featurizer = bundle.queries.featurizer
    assert isinstance(featurizer, Featurizer)
    items = featurizer([f"text number {number}" for number in range(SHARD_ROWS + 10)])
    assert isinstance(items, Bags)
    encode_shards(
        tmp_path, item_shards(items, "query", "one"), towers_of(bundle), processes=1, advance=lambda rows: None
    )
    found = np.concatenate([open_shard(tmp_path, 0), open_shard(tmp_path, 1)])
    assert found.shape == (SHARD_ROWS + 10, 32)
    assert np.abs(found[[0, 5, -1]] - bundle.queries.items(items.take(np.array([0, 5, len(items) - 1])))).max() < 1e-6
    assert not is_finished(tmp_path, next(item_shards(items, "query", "another")))


def test_only_what_is_not_finished_is_made_again(bundle: Bundle, tmp_path: Path) -> None:
    shards = noted(tmp_path / "texts", [("query", [(f"text {number}", None)]) for number in range(6)])
    to, nothing = tmp_path / "to", list[int]()
    encode_shards(to, shards, towers_of(bundle), processes=1, advance=nothing.append)
    before = {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    (to / "000000.json").unlink()  # the note was not written any more
    data = bytearray((to / "000001.npy").read_bytes())
    data[-1] ^= 1
    (to / "000001.npy").write_bytes(data)  # a bit has flipped
    (to / "000002.npy").write_bytes(data[:100])  # half written
    (to / "000003.json").write_text("{")
    write_texts(tmp_path / "texts", 4, "query", [("another text", None)])
    (to / ".000009.npy.x.part").write_bytes(b"left")
    shards = text_shards(tmp_path / "texts")
    assert [is_finished(to, shard) for shard in shards] == [False] * 5 + [True]
    encode_shards(to, shards, towers_of(bundle), processes=1, advance=nothing.append)
    assert all(is_finished(to, shard) for shard in shards)
    after = {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    assert {name for name in before if after[name] == before[name]} == {"000005.npy", "000005.json"}
    assert ".000009.npy.x.part" not in after


def test_nothing_to_encode(bundle: Bundle, tmp_path: Path) -> None:
    encode_shards(tmp_path / "to", [], towers_of(bundle), processes=2, advance=lambda rows: None)
    assert not list((tmp_path / "to").iterdir())


def test_a_tower_that_is_not_there_is_named_by_every_kind_of_process(bundle: Bundle, tmp_path: Path) -> None:
    shards = noted(tmp_path / "texts", [("query", [("a", None)])])
    nowhere = Towers(tmp_path, bundle.manifest.features)
    for processes in (1, 2):
        with pytest.raises(LabelspaceError, match=r"query\.onnx"):
            encode_shards(tmp_path / "to", shards, nowhere, processes=processes, advance=lambda rows: None)


def test_what_is_ready_is_looked_up_and_the_rest_is_encoded(bundle: Bundle, tmp_path: Path) -> None:
    shards = noted(tmp_path / "texts", [("query", ODD[:2]), ("query", ODD[2:])])
    encode_shards(tmp_path / "to", shards, towers_of(bundle), processes=1, advance=lambda rows: None)
    ready = ReadyEncoder(bundle.queries, "query", tmp_path / "to", shards)
    marked = np.zeros((len(ODD[:2]), 32), dtype=np.float32)
    ready._vectors[0] = marked  # so that one can tell where it came from
    texts = ["new", "zebra", "日本 料理", "", "new"]
    wanted: NDArray[np.float32] = bundle.queries.texts(texts)
    wanted[3] = 0.0
    found = ready.texts(texts)
    # The second "zebra" is in the other shard: whichever it is taken from.
    assert np.abs(found[[0, 2, 3, 4]] - wanted[[0, 2, 3, 4]]).max() < 1e-6
    assert ready.texts([]).shape == (0, 32)
    assert np.abs(ReadyEncoder(bundle.queries, "query", tmp_path, []).texts(texts)[0] - wanted[0]).max() < 1e-6


def test_a_digest_tells_towers_texts_and_fields_apart() -> None:
    keys = [
        text_digest("query", "a", None), text_digest("label", "a", None), text_digest("query", "b", None),
        *(text_digest("query", "a", {"n": value}) for value in (1, "1", True)), text_digest("query", "\ud800", None),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert text_digest("query", "a", {}) == keys[0]
    assert text_digest("query", "a", {"b": 1, "c": 2}) == text_digest("query", "a", {"c": 2, "b": 1})


KILLED = """
import sys, time
from pathlib import Path
from index import encode_shards as module
from index.bundle import read_manifest
folder, bundle = Path(sys.argv[1]), Path(sys.argv[2])
shards = module.text_shards(folder / "texts")
def advance(rows):
    print("one", flush=True)
    time.sleep(60)
towers = module.Towers(bundle, read_manifest(bundle).features)
module.encode_shards(folder / "to", shards, towers, processes=2, advance=advance)
"""


def test_processes_end_with_the_one_that_was_killed(bundle: Bundle, tmp_path: Path) -> None:
    noted(tmp_path / "texts", [("query", [(f"text {number}", None)]) for number in range(8)])
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(bundle.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    below = children(process.pid)
    assert len(below) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in below):
        time.sleep(0.05)
    assert [pid for pid in below if is_alive(pid)] == []


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_is_killed_is_said_to_be(bundle: Bundle, tmp_path: Path) -> None:
    shards = noted(tmp_path / "texts", [("query", [(f"text {number}", None)]) for number in range(6)])

    def kill(rows: int) -> None:
        for pid in children(os.getpid()):
            if b"multiprocessing-fork" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(LabelspaceError, match="was killed"):
        encode_shards(tmp_path / "to", shards, towers_of(bundle), processes=2, advance=kill)
    encode_shards(tmp_path / "to", shards, towers_of(bundle), processes=1, advance=lambda rows: None)
    assert all(is_finished(tmp_path / "to", shard) for shard in shards)
