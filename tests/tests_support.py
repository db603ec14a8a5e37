"""A small corpus with a real structure, written wherever a test wants it."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

SUBJECTS = (
    "apple pie", "bicycle repair", "chess opening", "garden soil", "piano lesson", "violin string", "bread oven",
    "coffee roast", "train timetable", "ferry harbour", "alpine climbing", "desert camel", "polar bear", "coral reef",
    "roman road", "viking ship", "stone bridge", "glass window", "silk weaving", "wool carpet", "copper kettle",
    "iron forge", "paper mill", "book binding", "letter press", "radio valve", "solar panel", "wind turbine",
    "steam engine", "rocket nozzle", "lunar crater", "comet tail", "ocean tide", "river delta", "volcano ash",
    "glacier ice", "cloud chamber", "X ray crystal", "größe übung", "日本 料理",
)  # fmt: skip
FILLERS = ("a guide to", "notes on", "the history of", "how to choose", "questions about", "pictures of")
TINY = ("features.rows=4096", "features.ngrams=[3]", "tower.dim=32", "tower.hidden=32", "training.epochs=12",
        "training.batch=32", "negatives.sampled=64", "training.threads=1", "training.dev_share=0.2")  # fmt: skip


KINDS = ("book", "film", "größe", "地図")


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    """JSON lines, compressed when the name ends in .gz."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_corpus(folder: Path, *, train: int = 400, test: int = 60) -> Path:
    """Queries that name one or two of 40 subjects; the label "s39" occurs in no training row."""
    chooser = random.Random(7)
    folder.mkdir(parents=True)
    labels: list[dict[str, object]] = [{"id": f"s{place}", "text": subject} for place, subject in enumerate(SUBJECTS)]
    write_lines(folder / "labels.jsonl", labels)
    for name, count, known in (("train", train, len(SUBJECTS) - 1), ("test", test, len(SUBJECTS))):
        rows: list[dict[str, object]] = []
        for number in range(count):
            chosen = chooser.sample(range(known), chooser.choice((1, 1, 2)))
            words = " and ".join(SUBJECTS[place] for place in chosen)
            text = f"{chooser.choice(FILLERS)} {words} {chooser.choice(('', 'today', 'for beginners'))}".strip()
            rows.append({"id": f"{name}{number}", "text": text, "labels": [f"s{place}" for place in chosen]})
        write_lines(folder / f"{name}.jsonl.gz", rows)
    return folder


def write_field_corpus(folder: Path, *, train: int = 240, test: int = 40) -> Path:
    """Every query has the same text; its label is that of its fields "type" and "lang", four kinds in two languages."""
    chooser = random.Random(5)
    folder.mkdir(parents=True)
    names = [f"{kind}-{lang}" for kind in range(len(KINDS)) for lang in ("en", "fr")]
    write_lines(folder / "labels.jsonl", [{"id": name, "text": f"label {name}"} for name in names])
    for name, count in (("train", train), ("test", test)):
        rows: list[dict[str, object]] = []
        for number in range(count):
            kind, lang = chooser.randrange(len(KINDS)), chooser.choice(("en", "fr"))
            fields = {"type": KINDS[kind], "lang": [lang], "year": 1900 + number, "odd": {"is": "not read"}}
            rows.append(
                {"id": f"{name}{number}", "text": "the same for all", "labels": [f"{kind}-{lang}"], "fields": fields}
            )
        write_lines(folder / f"{name}.jsonl", rows)
    return folder
