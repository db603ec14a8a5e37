"""One dataset the whole way: train, export, evaluate what is served, beside the peers; kept in one table of results.

    python benchmarks/datasets.py CORPUS [--set KEY=VALUE]… [--config FILE] [--seeds N] [--time-limit SECONDS] [--peers]

CORPUS is a corpus folder, or `debian`: debian-depends, grouped by source, is then built under build/debian if it is
not there. Everything that is chosen is chosen on dev; test is read from the exported bundle: once thinned to the rows
that the peers are asked, once whole. The result goes to benchmarks/results/datasets.json, in the place of one of the
same dataset and configuration, and datasets.md is written again. Peers that have been measured on this corpus are
taken from peers.json; `--peers` measures them in this run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import peers
from index.files import new_folder, write_json
from machine import Cost, costs, describe, run
from results_table import DATASETS, PAGE, Result, keep_rows, write_page
from training.corpus import Corpus, hold_out, load_corpus, split_path

BUILD = Path("build")
DEBIAN = "debian-depends"
LATENCY_ROWS = 1000


def corpus_folder(name: str) -> tuple[Path, str]:
    """The folder of a corpus and the name of the dataset; builds the Debian corpus where it is not there yet."""
    if name != "debian":
        return Path(name), Path(name).resolve().name
    folder = BUILD / "debian" / "corpus"
    if not folder.exists():
        cost, _ = run("corpus", "debian", folder)
        write_json(_corpus_cost(folder), asdict(cost))
    return folder, DEBIAN


def with_dev(folder: Path, name: str, share: float = 0.05) -> Path:
    """The folder itself where it has a dev split, else a corpus under build/dev whose dev is held out of its train.

    It is the part that `labelspace train` would hold out: by group, drawn by hash. Test is left out of it.
    """
    if split_path(folder, "dev") is not None:
        return folder
    out = BUILD / "dev" / f"{name}-{peers.fingerprint(folder, 'train')[:8]}"
    if out.exists():
        return out
    train = split_path(folder, "train")
    assert train is not None, f"{folder} has no train split"
    kept, held = hold_out(load_corpus(folder, ["train"]).splits["train"], share, 0)
    with gzip.open(train) if train.suffix == ".gz" else train.open("rb") as file:
        lines = [line.rstrip(b"\r\n") + b"\n" for line in file]
    with new_folder(out) as beside:
        for split, rows in (("train", kept), ("dev", held)):
            (beside / f"{split}.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[row] for row in rows), 1))
        labels = split_path(folder, "labels")
        if labels is not None:
            shutil.copyfile(labels, beside / labels.name)
    return out


def configuration_of(settings: Sequence[str], config: Path | None, seeds: int, time_limit: float | None) -> str:
    """What a configuration is called where it is not given a name: what differs from the defaults."""
    parts = [config.stem] if config else []
    parts += sorted(settings)
    parts += [f"{seeds} seeds"] if seeds > 1 else []
    parts += [f"{time_limit:g} s"] if time_limit is not None else []
    return ", ".join(parts) or "defaults"


def slug(text: str) -> str:
    """A folder name for a configuration."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80]


def train_options(
    settings: Sequence[str], config: Path | None = None, seeds: int = 1, time_limit: float | None = None
) -> list[str]:
    """The options of `labelspace train`."""
    options = [f"--set={setting}" for setting in settings]
    options += ["--config", str(config)] if config else []
    options += ["--seeds", str(seeds)] if seeds > 1 else []
    return options + (["--time-limit", f"{time_limit:g}"] if time_limit is not None else [])


def figures_of(evaluation: dict[str, Any]) -> dict[str, float]:
    """The figures of one `labelspace evaluate --json`, named as the peers' are."""
    return {**evaluation["metrics"], "unseen R@10": evaluation["unseen"]["R@10"]}


def judged_of(evaluation: dict[str, Any]) -> int:
    return int(evaluation["rows"] - evaluation["rows_without_labels"])


def ms_per_query(collection: Path, corpus: Corpus, rows: int) -> float:
    """Milliseconds from a text to its 100 best labels, one text at a time in this process, over thinned test rows."""
    from index.collection import Collection

    test = corpus.splits["test"]
    chosen = peers.thinned(test.relevance, rows)
    texts = [test.texts[row] for row in np.random.default_rng(1).permutation(chosen)[:LATENCY_ROWS]]
    with Collection(collection) as opened:
        for text in texts[:50]:
            opened.snapshot.predict([text], peers.DEPTH)
        began = time.perf_counter()
        for text in texts:
            opened.snapshot.predict([text], peers.DEPTH)
        return 1000 * (time.perf_counter() - began) / len(texts)


def measure(folder: Path, dataset: str, configuration: str, options: list[str], rows: int) -> Result:
    """Train, export and evaluate one configuration; what it left stays under build/datasets."""
    work = BUILD / "datasets" / slug(dataset) / slug(configuration)
    shutil.rmtree(work, ignore_errors=True)
    trained, collection = work / "run", work / "collection"
    whole, part = work / "test.json", work / "thinned.json"
    measured: dict[str, Cost] = {}
    if _corpus_cost(folder).exists():
        measured["corpus"] = Cost(**json.loads(_corpus_cost(folder).read_text()))
    measured["train"], _ = run("train", folder, "--out", trained, *options)
    measured["export"], _ = run("export", trained, "--to", collection)
    measured["evaluate"], table = run("evaluate", collection, folder, "--json", whole)
    print(table)
    run("evaluate", collection, folder, "--rows", str(rows), "--bootstrap", "0", "--json", part)
    evaluation, thinned = json.loads(whole.read_text()), json.loads(part.read_text())
    manifest = json.loads((collection / "bundles" / evaluation["bundle"] / "manifest.json").read_text())
    corpus = load_corpus(folder, ["train", "test"])
    return Result(
        dataset,
        configuration,
        peers.fingerprint(folder),
        rows,
        judged_of(thinned),
        figures_of(thinned),
        evaluation,
        costs(measured),
        round(ms_per_query(collection, corpus, rows), 3),
        {**{name: len(split) for name, split in corpus.splits.items()}, "labels": len(corpus.label_ids)},
        options,
        tomllib.loads(next(iter(sorted(trained.rglob("config.toml")))).read_text()),
        {key: manifest.get(key) for key in ("ranking", "index", "memory")},
        describe(),
    )


def _corpus_cost(folder: Path) -> Path:
    return folder.parent / "corpus-cost.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--name", help="of the dataset; the folder's name if not given")
    parser.add_argument("--configuration", help="its name in the table; made of the settings if not given")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--peers", action="store_true", help="measure the peers in this run, even if they are kept")
    parser.add_argument("--rows", type=int, default=peers.ROWS, help="test rows that we and the peers are judged on")
    arguments = parser.parse_args()
    folder, name = corpus_folder(arguments.corpus)
    chosen = (arguments.settings, arguments.config, arguments.seeds, arguments.time_limit)
    configuration = arguments.configuration or configuration_of(*chosen)
    options = train_options(*chosen)
    result = measure(folder, arguments.name or name, configuration, options, arguments.rows)
    keep_rows(DATASETS, [result], lambda row: (row.dataset, row.configuration))
    if arguments.peers:
        peers.measure(folder, result.dataset, rows=arguments.rows, force=True)
    write_page()
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
