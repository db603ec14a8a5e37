"""A new query encoder on the index of an old one: P@1 and R@10 of every version's queries on every version's labels.

    python benchmarks/compatibility.py CORPUS [--set KEY=VALUE]… [--against-set KEY=VALUE]… [--other-seeds] [--choose]

CORPUS is a corpus folder, or `debian` (benchmarks/datasets.py). Version 1 is trained on half of the training records,
version 2 on three quarters, version 3 on all. Later versions are trained anew, queries and labels, as every retraining
without this is, with the same seed or with another one each, and with `--against` the collection of the version before,
whose label vectors stay as they are. M[q][g] is a figure of the queries of version q on the index and the memory of
version g, q on g being compatible when it is no worse than g on g (q > g). `--choose` reads dev alone, for version 2
under other settings, and goes on where it was stopped; without it, test is read once. Writes
benchmarks/results/compatibility.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets import BUILD, corpus_folder, slug, with_dev
from index.bundle import Bundle
from index.bundles import current_bundle
from index.files import new_folder, write_json
from index.snapshot import Snapshot
from machine import RESULTS, costs, describe, run
from training.corpus import hash_fraction, split_path
from training.evaluation import judge

OUT = RESULTS / "compatibility.json"
SHARES = (0.5, 0.75, 1.0)
ROWS = 4000
# What is tried for version 2 on dev: label texts as queries or not, and the weight of what keeps queries near old ones.
CHOICES = tuple(
    (f"label.text_queries={texts}", f"compatible.weight={weight}")
    for weight in ("0", "0.3", "0.1", "0.6")
    for texts in ("false", "true")
)


@dataclass(frozen=True, slots=True)
class Chain:
    """The versions' collections, first to last, and what each training took."""

    collections: tuple[Path, ...]
    costs: dict[str, dict[str, dict[str, float]]]


def share_of(corpus: Path, share: float, out: Path) -> Path:
    """The corpus with a share of its training records, drawn by hash of their group; a larger share has them, too."""
    if out.exists():
        return out
    with new_folder(out) as beside:
        for name in ("labels", "dev", "test", "train"):
            path = split_path(corpus, name)
            if path is None:
                continue
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                lines = file.readlines()
            if name == "train":
                lines = [line for line in lines if hash_fraction(_group(json.loads(line))) < share]
            (beside / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"".join(lines), 1))
    return out


def _group(record: Mapping[str, Any]) -> str:
    # Dev and test may have been drawn by the hash of the name alone: what is left of those is no even spread.
    return f"version {record.get('group') or record['id']}"


def version(corpus: Path, folder: Path, options: Sequence[str]) -> dict[str, dict[str, float]]:
    """Train and export one version into `folder`, unless one of these options is there; what both took."""
    note = folder / "version.json"
    made = json.loads(note.read_text()) if note.exists() else {}
    if made.get("options") != [str(corpus), *options]:
        shutil.rmtree(folder, ignore_errors=True)
        trained, _ = run("train", corpus, "--out", folder / "run", *options)
        exported, _ = run("export", folder / "run", "--to", folder / "collection")
        shutil.rmtree(folder / "run")
        made = {"options": [str(corpus), *options], "costs": costs({"train": trained, "export": exported})}
        write_json(note, made)
    found: dict[str, dict[str, float]] = made["costs"]
    return found


def chain(
    corpora: Sequence[Path], work: Path, settings: Sequence[str], against: Sequence[str] | None, *, seeds: bool = False
) -> Chain:
    """All versions; against: settings of those that are trained against the one before, None to train each anew.

    seeds: whether those trained anew have seeds of their own. The first version is the same for all, and what was
    trained under the same options is not trained again: remove `work` after a change of the program.
    """
    options = [f"--set={setting}" for setting in settings]
    folders = [work / "first"]
    took = {"1": version(corpora[0], folders[0], options)}
    for number, corpus in enumerate(corpora[1:], 2):
        way = "against" if against is not None else "seeds" if seeds else "anew"
        folder = work / way / str(number)
        more = [f"--set=training.seed={number}"] if seeds else []
        if against is not None:
            more = ["--against", str(folders[-1] / "collection"), *(f"--set={setting}" for setting in against)]
        took[str(number)] = version(corpus, folder, [*options, *more])
        folders.append(folder)
    return Chain(tuple(folder / "collection" for folder in folders), took)


def met(queries: Bundle, labels: Bundle, *, memory: bool) -> Snapshot:
    """What is served when a bundle's queries meet another one's labels, with its memory or without."""
    snapshot = replace(Snapshot.of(labels), bundle=replace(labels, queries=queries.queries))
    return snapshot if memory else replace(snapshot, memory=None)


def figures(snapshot: Snapshot, corpus: Path, split: str, rows: int | None) -> dict[str, float]:
    """In percent; unseen: of labels that no training record of this corpus carries, where there are any."""
    judgement = judge(snapshot, corpus, split=split, rows=rows)
    judged = judgement.judged
    unseen = judged.recall_parts(10, judgement.counts == 0)
    found = {"P@1": judged.precision(1), "R@10": judged.recall(10)}
    found |= {"unseen R@10": unseen.figure} if unseen.of.any() else {}
    return {name: round(100 * value, 2) for name, value in found.items()}


def matrix(bundles: Sequence[Bundle], corpus: Path, split: str, *, memory: bool) -> dict[str, list[list[float]]]:
    """By figure, M[q][g] in percent."""
    found: dict[str, list[list[float]]] = {}
    for queries in bundles:
        row = [figures(met(queries, labels, memory=memory), corpus, split, ROWS) for labels in bundles]
        for name in row[0]:
            found.setdefault(name, []).append([one[name] for one in row])
    return found


def compatible_share(values: Sequence[Sequence[float]]) -> float:
    """Of the pairs q > g, the share of which M[q][g] ≥ M[g][g]; AC of stationary representations (CVPR 2024)."""
    pairs = [values[q][g] >= values[g][g] for q in range(len(values)) for g in range(q)]
    return float(np.mean(pairs))


def lower_mean(values: Sequence[Sequence[float]]) -> float:
    """The mean of M[q][g] over q ≥ g: AM of the same."""
    return float(np.mean([values[q][g] for q in range(len(values)) for g in range(q + 1)]))


def choose(corpora: Sequence[Path], work: Path, settings: Sequence[str], known: dict[str, Any]) -> Iterator[None]:
    """Version 2 on version 1, on dev, for each of CHOICES that is not `known`, into which each result goes at once."""
    first = chain(corpora[:1], work, settings, None).collections[0]
    old = Bundle.open(current_bundle(first))
    for more in (None, *CHOICES):
        name = "version 1 on itself" if more is None else ", ".join(more)
        if name in known:
            continue
        new = old
        if more is not None:
            chain(corpora[:2], work, settings, more)
            new = Bundle.open(current_bundle(work / "against" / "2" / "collection"))
        known[name] = {
            "labels": figures(met(new, old, memory=False), corpora[0], "dev", ROWS),
            "served": figures(met(new, old, memory=True), corpora[0], "dev", ROWS),
        }
        print(name, known[name], flush=True)
        yield


def measure(
    corpora: Sequence[Path], work: Path, settings: Sequence[str], against: Sequence[str], *, other_seeds: bool
) -> dict[str, Any]:
    """The matrices of all ways on test."""
    found: dict[str, Any] = {}
    ways = {"anew": (None, False), "anew, another seed": (None, True), "against": (tuple(against), False)}
    for way, (more, seeds) in ways.items():
        if seeds and not other_seeds:
            continue
        made = chain(corpora, work, settings, more, seeds=seeds)
        bundles = [Bundle.open(current_bundle(collection)) for collection in made.collections]
        found[way] = {"costs": made.costs}
        for part, memory in (("labels", False), ("served", True)):
            values = matrix(bundles, corpora[-1], "test", memory=memory)
            found[way][part] = {
                name: {"M": of, "AC": compatible_share(of), "AM": round(lower_mean(of), 2)}
                for name, of in values.items()
            }
            print(way, part, json.dumps(found[way][part]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--name", help="of the dataset; the folder's name if not given")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--against-set", dest="against", action="append", default=[])
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the training records, by version")
    parser.add_argument("--other-seeds", action="store_true", help="anew with another seed, too")
    parser.add_argument("--work", type=Path, default=BUILD / "compatibility")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    folder, name = corpus_folder(arguments.corpus)
    name = arguments.name or name
    work = arguments.work / slug(name)
    full = with_dev(folder, name)
    if split_path(full, "test") is None:
        # One whose dev was held out has no test beside it.
        test = split_path(folder, "test")
        assert test is not None, f"{folder} has no test split"
        full = Path(shutil.copytree(full, work / "whole", dirs_exist_ok=True))
        shutil.copyfile(test, full / test.name)
    corpora = [share_of(full, share, work / f"corpus-{share}") for share in arguments.shares]
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    result = results.setdefault(name, {})
    if arguments.choose:
        dev = result.setdefault("dev", {"settings": arguments.settings, "choices": {}})
        dev["machine"] = describe()
        for _ in choose(corpora, work, arguments.settings, dev["choices"]):
            write_json(arguments.out, results)
    else:
        found = measure(corpora, work, arguments.settings, arguments.against, other_seeds=arguments.other_seeds)
        settings = {"settings": arguments.settings, "against_settings": arguments.against}
        result["test"] = {"machine": describe(), "shares": arguments.shares, "rows": ROWS, **settings, **found}
    write_json(arguments.out, results)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
