"""A collection that is re-indexed while it serves: what those notice who ask it, and whether a change is lost.

    python benchmarks/reindexing.py [--collection C --corpus DIR] [--rate 200] [--puts 2000] [--folder build/reindexing]

Without a collection one of about 36,000 labels is trained: of this machine's Debian packages where their lists are
here, else of made-up words. It gets so many new labels, and feedback; then a service answers predictions at a fixed
rate (benchmarks/reindexing_load.py), and takes two new labels a second, while `labelspace reindex` runs beside it and
the new bundle is taken over. Writes benchmarks/results/reindexing.json.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from index.bundles import current_bundle
from index.changes import Feedback, LabelChange, PutLabel
from index.collection import Collection
from machine import RESULTS, describe, run
from serving import start
from training.corpus import read_records, split_path

LOAD = Path(__file__).with_name("reindexing_load.py")
PACKAGE_LISTS = Path("/var/lib/apt/lists")
# What happens within so many seconds of the first answer from the new bundle counts as the swap.
AROUND = 2.0
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "zi")


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked, in order of when it was due: seconds, latency in ms, status, and bundle of each answer."""

    due: np.ndarray[Any, np.dtype[np.float64]]
    latency: np.ndarray[Any, np.dtype[np.float64]]
    status: np.ndarray[Any, np.dtype[np.int64]]
    bundle: list[str]

    @classmethod
    def read(cls, lines: str) -> Answers:
        rows = sorted(json.loads(line) for line in lines.splitlines())
        due, latency, status, bundle = zip(*rows, strict=True)
        return cls(np.array(due), np.array(latency), np.array(status), list(bundle))

    def between(self, first: float, last: float) -> dict[str, float]:
        """Of what fell due then: how much, how much of it failed, and the latencies of the rest."""
        here = (self.due >= first) & (self.due < last)
        good = here & (self.status == 200)
        found: dict[str, float] = {"requests": int(here.sum()), "failed": int((here & (self.status != 200)).sum())}
        if not good.any():
            return found
        shares = {f"p{share}": round(float(np.percentile(self.latency[good], share)), 2) for share in (50, 90, 99, 100)}
        return {**found, **shares}

    def swapped(self, name: str) -> float:
        """When the first request was due that the bundle of this name answered."""
        return float(self.due[self.bundle.index(name)])


def made_up_corpus(folder: Path, labels: int = 36_000, queries: int = 20_000) -> Path:
    """Labels of three made-up words, and queries that say two of them and others."""
    chooser = random.Random(0)
    words = ["".join(chooser.choices(SYLLABLES, k=3)) for _ in range(6000)]
    texts = [" ".join(chooser.sample(words, 3)) for _ in range(labels)]
    folder.mkdir(parents=True)
    rows = [{"id": f"l{number}", "text": text} for number, text in enumerate(texts)]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, count in (("train", queries), ("dev", 1000), ("test", 1000)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(count):
                label = chooser.randrange(labels)
                text = " ".join([*texts[label].split()[:2], *chooser.sample(words, 4)])
                file.write(json.dumps({"id": f"{name}{number}", "text": text, "labels": [f"l{label}"]}) + "\n")
    return folder


def made(folder: Path) -> tuple[Path, Path]:
    """A collection and its corpus, trained shortly: how well it predicts is no matter here."""
    shutil.rmtree(folder, ignore_errors=True)
    corpus, trained, collection = folder / "corpus", folder / "run", folder / "collection"
    if list(PACKAGE_LISTS.glob("*Packages*")):
        run("corpus", "debian", corpus)
    else:
        made_up_corpus(corpus)
    run("train", corpus, "--out", trained, "--set=training.epochs=2")
    run("export", trained, "--to", collection)
    return collection, corpus


def change(collection: Path, texts: list[str], puts: int) -> float:
    """Log so many new labels, some with an example, and feedback; returns the seconds that it took."""
    with Collection(collection) as opened:
        known = [label.id for _, label in islice(opened.snapshot.labels.after(None), 1000)]
        changes: list[LabelChange] = []
        for number in range(puts):
            text = texts[number % len(texts)]
            examples = (text,) if number % 4 == 0 else ()
            changes.append(PutLabel(f"bench-{number}", f"{text[:60]} ({number})", examples))
            if number % 4 == 1:
                changes.append(Feedback(text, (known[number % len(known)],)))
        began = time.monotonic()
        opened.write(changes)
        return time.monotonic() - began


@contextmanager
def putting(port: int, seconds: float, done: list[str]) -> Iterator[None]:
    """A new label every so many seconds meanwhile; `done` gets the ids of those that were acknowledged."""
    ended = threading.Event()

    def put() -> None:
        number = 0
        while not ended.wait(seconds):
            name, number = f"meanwhile-{number}", number + 1
            body = json.dumps({"text": f"label {number} that came meanwhile"}).encode()
            address = f"http://127.0.0.1:{port}/v1/labels/{name}?wait=true"
            request = Request(address, body, {"Content-Type": "application/json"}, method="PUT")
            with urlopen(request, timeout=30) as answer:
                answer.read()
            done.append(name)

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def reindexed(collection: Path) -> tuple[float, float, str]:
    """When the job began and ended, and what it said."""
    began = time.monotonic()
    command = [sys.executable, "-m", "cli", "reindex", str(collection), "--gate", "overlap=0.9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stderr, done.stdout, sep="")
    if done.returncode:
        sys.exit(f"labelspace reindex failed with code {done.returncode}")
    return began, time.monotonic(), done.stderr


def measure(collection: Path, texts: list[str], rate: float, quiet: float) -> dict[str, Any]:
    """The whole: quiet, the job, the swap, quiet again."""
    bodies = collection.parent / "bodies.jsonl"
    inputs = [{"inputs": [{"text": text}], "top_k": 10} for text in texts]
    bodies.write_text("".join(json.dumps(one) + "\n" for one in inputs))
    service, port = start(collection)
    acknowledged: list[str] = []
    try:
        command = [sys.executable, str(LOAD), str(port), "16", str(rate), str(bodies)]
        load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with putting(port, 0.5, acknowledged):
            time.sleep(2 + quiet)
            began, ended, said = reindexed(collection)
            time.sleep(quiet)
        answers = Answers.read(load.communicate("")[0])
    finally:
        service.terminate()
        service.wait(timeout=60)
    name = current_bundle(collection).name
    swapped = answers.swapped(name)
    with Collection(collection) as opened:
        lost = [label for label in acknowledged if opened.snapshot.labels.find(label) is None]
        after = opened.snapshot.change - opened.snapshot.bundle.manifest.change
    return {
        "requests a second": rate,
        "quiet": answers.between(began - quiet, began),
        "during the job": answers.between(began, ended),
        "around the swap": answers.between(swapped - AROUND, swapped + AROUND),
        "after": answers.between(swapped + AROUND, answers.due[-1]),
        "failed": int((answers.status != 200).sum()),
        "job_seconds": round(ended - began, 1),
        "taken over after the job ended, seconds": round(swapped - ended, 2),
        "labels put meanwhile": len(acknowledged),
        "of them lost": len(lost),
        "changes behind the new bundle": after,
        "job said": said.splitlines(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, help="Is copied, and not changed.")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/reindexing"))
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--puts", type=int, default=2000)
    parser.add_argument("--quiet", type=float, default=10, help="Seconds before and after.")
    parser.add_argument("--out", type=Path, default=RESULTS / "reindexing.json")
    arguments = parser.parse_args()
    if arguments.collection is None:
        collection, corpus = made(arguments.folder)
    else:
        assert arguments.corpus is not None, "--collection needs --corpus, for its texts"
        shutil.rmtree(arguments.folder, ignore_errors=True)
        corpus = arguments.corpus
        collection = Path(shutil.copytree(arguments.collection, arguments.folder / "collection"))
    path = split_path(corpus, "test") or split_path(corpus, "train")
    assert path is not None
    texts = [record.text for record in islice(read_records(path), 4000)]
    seconds = change(collection, texts, arguments.puts)
    result = {
        "machine": describe(),
        "labels put before": arguments.puts,
        "put in seconds": round(seconds, 1),
        **measure(collection, texts, arguments.rate, arguments.quiet),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))


if __name__ == "__main__":
    main()
