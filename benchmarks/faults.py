"""What becomes of a collection when processes are killed, disks are full, bits flip and clocks run backwards.

    python benchmarks/faults.py COLLECTION [--kills 200] [--job NAME]… [--postgres URL] [--replay 1000000]

Works on copies. After each kill the collection is opened: every change that was acknowledged has to be there, once and
in order, and what is current has to be a whole bundle. Writes benchmarks/results/faults.json; stops at the first fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from index.bundles import add_bundle, bundle_names, current_bundle, promote, prune, rollback, verify
from index.change_log import open_log
from index.changes import Feedback, LabelChange, PutLabel, RemoveLabel
from index.collection import Collection
from index.errors import LabelspaceError
from index.files import write_json
from index.reindex import Settings, reindex
from machine import RESULTS, describe

_OLD = 1e9


@dataclass(frozen=True, slots=True)
class Job:
    """Work to be killed again and again on one collection.

    command: what to run, given folder, URL of the log ("" for a file) and a number that no run before has used as its
    first; it prints "ready", then a line for all that it has done for good. check: given folder, URL and all lines so
    far, fails unless all that is there. longest: seconds after "ready" until the kill, at most.
    """

    command: Callable[[Path, str, int], Sequence[str]]
    check: Callable[[Path, str, list[str]], None]
    postgres: bool = False
    longest: float = 0.2


def write_labels(folder: Path, url: str, start: int) -> None:
    """Three labels at once and one alone by turns; says the last number of each write."""
    with Collection(folder, log=url or None) as opened:
        print("ready", flush=True)
        number = start
        while True:
            number = _write_next(opened, number)


def reindex_labels(folder: Path, url: str, start: int) -> None:
    """Writes as write_labels does, and after each write the next bundle, made current."""
    print("ready", flush=True)
    number = start
    while True:
        with Collection(folder, log=url or None) as opened:
            number = _write_next(opened, number)
        settings = Settings(gate="none")
        reindex(folder, settings, log=url or None, report=lambda line: None, meter=_no_meter)


def add_bundles(folder: Path, url: str, start: int) -> None:
    """Writes bundles, copies of the current one, and makes them current; says their names."""
    print("ready", flush=True)
    while True:
        print(add_bundle(folder, "copy", _copying(folder)), flush=True)


def move_current(folder: Path, url: str, start: int) -> None:
    """Promotes and rolls back; says what is current."""
    while len(bundle_names(folder)) < 3:
        add_bundle(folder, "copy", _copying(folder), promote=False)
    names, chooser = bundle_names(folder), random.Random(start)
    print("ready", flush=True)
    while True:
        if chooser.random() < 0.3:
            try:
                print(rollback(folder), flush=True)
                continue
            except LabelspaceError:
                pass
        name = chooser.choice(names)
        promote(folder, name)
        print(name, flush=True)


def check_labels(folder: Path, url: str, said: list[str]) -> None:
    with Collection(folder, log=url or None) as opened:
        live = {label.id: label.text for _, label in opened.snapshot.labels.after(None)}
        written = [change.what for change in opened._log.since(0) if isinstance(change.what, PutLabel)]
        numbers = [int(put.id[1:]) for put in written if put.text == f"killed label {put.id[1:]}"]
        assert numbers == sorted(set(numbers)), "a change is there twice, or out of order"
        last = max(map(int, said), default=-1)
        missing = {number for number in _acknowledged(said) if f"k{number}" not in live}
        assert not missing, f"acknowledged and lost: {sorted(missing)[:5]} (up to {last})"
        if last >= 0:
            rows = opened.snapshot.predict([f"killed label {last}"], 20).rows[0]
            assert any(row >= 0 and opened.snapshot.labels[row].id.startswith("k") for row in rows.tolist())


def check_all(folder: Path, url: str, said: list[str]) -> None:
    check_labels(folder, url, said)
    check_bundles(folder, url, [])


def check_bundles(folder: Path, url: str, said: list[str]) -> None:
    names = bundle_names(folder)
    current = current_bundle(folder)
    faults = [check.fault for check in verify(folder, current.name) if check.fault]
    assert not faults, faults
    # What was said last is current, or what was begun after it.
    assert not said or said[-1] in names
    Collection(folder, log=url or None).close()
    if len(names) > 4:
        for name in names:
            os.utime(folder / "bundles" / name, (_OLD, _OLD))
        prune(folder)
        said.clear()


def _own(name: str) -> Callable[[Path, str, int], Sequence[str]]:
    here = str(Path(__file__).resolve())
    return lambda folder, url, start: [sys.executable, here, str(folder), "--child", name, url, str(start)]


CHILDREN = {"write": write_labels, "reindex": reindex_labels, "export": add_bundles, "promote": move_current}
JOBS = {
    "write": Job(_own("write"), check_labels),
    "write-postgres": Job(_own("write"), check_labels, postgres=True),
    "export": Job(_own("export"), check_bundles, longest=1.0),
    "promote": Job(_own("promote"), check_bundles),
    "reindex": Job(_own("reindex"), check_all, longest=2.0),
    "reindex-postgres": Job(_own("reindex"), check_all, postgres=True, longest=2.0),
}


def kill(job: Job, folder: Path, url: str, kills: int, seed: int = 0) -> dict[str, Any]:
    """Run the job and kill it at a random point, so many times, on one collection; what was checked."""
    chooser, said, acknowledged, start = random.Random(seed), list[str](), 0, 0
    for number in range(kills):
        process = subprocess.Popen(job.command(folder, url, start), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the job did not begin"
        timer = threading.Timer(chooser.random() * job.longest, process.send_signal, (signal.SIGKILL,))
        timer.start()
        lines = process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        timer.join()
        assert process.wait() == -signal.SIGKILL, f"the job ended by itself with {process.returncode}"
        said += lines
        acknowledged += len(lines)
        job.check(folder, url, said)
        # A gap, so that what was done and not said is told from what comes now.
        start += 4 * (len(lines) + 2)
        print(f"kill {number + 1}: {acknowledged} acknowledged", file=sys.stderr, flush=True)
    return {"kills": kills, "acknowledged": acknowledged}


def fill_disk(folder: Path) -> dict[str, Any]:
    """Write until no file may grow; then with room again. What was acknowledged is there, and only that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    stored, messages = 0, set[str]()
    first = current_bundle(folder).name
    with Collection(folder) as opened:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            while not messages:
                try:
                    opened.write([PutLabel(f"full{stored}", "x" * 2000)])
                    stored += 1
                except LabelspaceError as error:
                    messages.add(str(error).partition(": ")[2])
            try:
                add_bundle(folder, "full", _write_much)
            except LabelspaceError as error:
                messages.add(str(error).partition(": ")[2])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        opened.write([PutLabel("room", "again")])
    with Collection(folder) as again:
        labels = {label.id for _, label in again.snapshot.labels.after(None)}
        assert {f"full{number}" for number in range(stored)} | {"room"} <= labels
        assert f"full{stored}" not in labels
    assert (current_bundle(folder).name, bundle_names(folder)) == (first, [first])
    return {"stored_before_full": stored, "messages": sorted(messages)}


def flip_bits(folder: Path, flips: int = 3) -> dict[str, Any]:
    """Flip single bits in each file of the current bundle, and in a change of the log; verify has to find each."""
    with Collection(folder) as opened:
        opened.write([PutLabel(f"flip{number}", f"a text {number}") for number in range(100)])
    chooser, found = random.Random(0), 0
    bundle = current_bundle(folder)
    files = [path for path in sorted(bundle.iterdir()) if path.stat().st_size]
    for path in files:
        for _ in range(flips):
            with _flipped(path, chooser.randrange(path.stat().st_size), chooser.randrange(8)):
                assert verify(folder, bundle.name)[0].fault, f"{path}: a flipped bit was not found"
                found += 1
    log = folder / "changes.sqlite"
    for number in range(0, 100, 5):
        place = log.read_bytes().index(f'"text": "a text {number}"'.encode()) + chooser.randrange(18)
        with _flipped(log, place, chooser.randrange(8)):
            assert verify(folder)[-1].fault, f"{log}: a flipped bit was not found"
            found += 1
    assert not [check for check in verify(folder) if check.fault]
    return {"files": len(files) + 1, "flips_found": found}


def turn_back_clock(folder: Path) -> dict[str, Any]:
    """Changes while the clock jumps to and fro are replayed in the order in which they were made."""
    clock = random.Random(0)
    with Collection(folder) as opened, patch("index.change_log.time", lambda: clock.uniform(-1e9, 4e9)):
        for number in range(50):
            opened.write([PutLabel("clock", f"said {number}")])
    with Collection(folder) as again:
        row = again.snapshot.labels.find("clock")
        assert row is not None and again.snapshot.labels[row].text == "said 49"
    return {"changes": 50}


def replay(folder: Path, url: str, changes: int) -> dict[str, Any]:
    """How long a log takes to be written in blocks, and to be replayed when the collection is opened."""
    log = open_log(folder, url or None)
    began, done = time.monotonic(), 0
    while done < changes:
        block = list(_changes(done, min(65_536, changes - done)))
        log.append(block)
        done += len(block)
    appended = time.monotonic() - began
    log.close()
    began = time.monotonic()
    with Collection(folder, log=url or None) as opened:
        seconds = time.monotonic() - began
        assert opened.snapshot.change == changes
        labels = len(opened.snapshot.labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "changes": changes,
        "appended_per_second": round(changes / appended),
        "opened_in_seconds": round(seconds, 2),
        "labels": labels,
        "peak_gb": round(peak, 2),
    }


def _copying(folder: Path) -> Callable[[Path, str], None]:
    source = current_bundle(folder)

    def fill(beside: Path, name: str) -> None:
        shutil.copytree(source, beside, dirs_exist_ok=True)

    return fill


def _write_much(folder: Path, name: str) -> None:
    (folder / "vectors.npy").write_bytes(b"x" * 1_000_000)


def _changes(first: int, count: int) -> Iterator[LabelChange]:
    """Of ten: seven new labels, an edit, feedback and a removal."""
    for number in range(first, first + count):
        match number % 10:
            case 7:
                yield PutLabel(f"label {number - 7}", f"another text of label {number}")
            case 8:
                yield Feedback(f"a query about number {number}", (f"label {number - 7}",))
            case 9:
                yield RemoveLabel(f"label {number - 7}")
            case _:
                yield PutLabel(f"label {number}", f"the text of label {number}, which is new")


def _write_next(opened: Collection, number: int) -> int:
    """The next write of write_labels, said when it is done; returns the number after it."""
    some = range(number, number + (3 if number % 4 == 0 else 1))
    opened.write([PutLabel(f"k{one}", f"killed label {one}", (f"example {one}",)) for one in some])
    print(some.stop - 1, flush=True)
    return some.stop


@contextmanager
def _no_meter(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    yield lambda rows: None


def _acknowledged(said: list[str]) -> Iterator[int]:
    """The numbers of all labels in the writes that were acknowledged."""
    for last in map(int, said):
        yield from range(last - 2, last + 1) if last % 4 == 2 else [last]


@contextmanager
def _flipped(path: Path, place: int, bit: int) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    try:
        yield
    finally:
        path.write_bytes(whole)


@contextmanager
def _copy(collection: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(collection, Path(folder) / "collection"))


def run(collection: Path, *, kills: int, jobs: Sequence[str], url: str, changes: int) -> dict[str, Any]:
    """All that was asked for, each on a copy of the collection."""
    result: dict[str, Any] = {}
    for name in jobs:
        if JOBS[name].postgres and not url:
            continue
        with _copy(collection) as folder:
            result[f"killed {name}"] = kill(JOBS[name], folder, url if JOBS[name].postgres else "", kills)
    for fault in (fill_disk, flip_bits, turn_back_clock):
        with _copy(collection) as folder:
            result[fault.__name__] = fault(folder)
    for kind, where in (("sqlite", ""), ("postgresql", url)):
        if changes and (where or kind == "sqlite"):
            with _copy(collection) as folder:
                result[f"replay {kind}"] = replay(folder, where, changes)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--job", action="append", choices=list(JOBS), help="Only these; repeatable.")
    parser.add_argument("--postgres", default=os.environ.get("LABELSPACE_LOG", ""), metavar="URL")
    parser.add_argument("--replay", type=int, default=0, metavar="CHANGES")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.pop("LABELSPACE_LOG", None)
    if arguments.child:
        name, url, start = arguments.child
        CHILDREN[name](arguments.collection, url, int(start))
        return
    jobs = arguments.job or list(JOBS)
    result = run(
        arguments.collection, kills=arguments.kills, jobs=jobs, url=arguments.postgres, changes=arguments.replay
    )
    print(json.dumps({"machine": describe(), **result}, indent=2))
    write_json(RESULTS / "faults.json", {"machine": describe(), **result})


if __name__ == "__main__":
    main()
