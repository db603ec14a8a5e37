"""What the fields of records and labels are worth: the same training with and without them, judged on dev.

    python benchmarks/fields.py [--data DIR] [--only NAME …] [--set KEY=VALUE]… [--repeats N] [--list]

tibkat-gnd-en: library records with `type`, which is known of every query, and `domains`, which is itself assigned by
librarians: a second tagging task, so that figures with it hold only where somebody has done that one first.
movielens-latest-small: the next film of a user, from the films before it, with `user`, and `genres` of the labels.
Each configuration is trained, exported and measured on dev from its bundle, once with each of `--repeats` seeds; test
is not read. Results go to benchmarks/results/fields.json, each in the place of the one of the same dataset, name and
seed, and to fields.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ablations import Ablation, measure, runs_of
from datasets import train_options
from index.files import new_folder, write_text
from machine import RESULTS
from results_table import COLUMNS, keep_rows, read_rows
from training.corpus import split_path
from unified_tasks import BUILD, DATA, Settings, inline_table, movielens

ROWS, PAGE = RESULTS / "fields.json", RESULTS / "fields.md"
_HISTORY = 100
_SHOWN = (*COLUMNS, "unseen R@10")


@dataclass(frozen=True, slots=True)
class Compared:
    """A dataset and the configurations that are compared on it. common: settings of all of them."""

    dataset: str
    corpus: Callable[[Path], Path]
    common: tuple[str, ...]
    configurations: tuple[Ablation, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What came out of one configuration with one seed, in percent of the `judged` dev rows.

    budget: the options that all configurations share.
    """

    dataset: str
    name: str
    seed: int
    settings: list[str]
    budget: list[str]
    figures: dict[str, float]
    judged: int
    costs: dict[str, dict[str, float]]
    machine: dict[str, Any] = field(default_factory=dict)


def with_fields(folder: Path, out: Path, names: Sequence[str]) -> Path:
    """The corpus with these keys of its records moved into `fields`, all else as it is; kept in `out`."""
    if out.exists():
        return out
    with new_folder(out) as beside:
        for split in ("train", "dev", "test"):
            path = split_path(folder, split)
            if path is None:
                continue
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                lines = [_moved(json.loads(line), names) for line in file]
            (beside / f"{split}.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode(), 1))
        labels = split_path(folder, "labels")
        if labels is not None:
            shutil.copyfile(labels, beside / labels.name)
    return out


def _moved(record: dict[str, object], names: Sequence[str]) -> str:
    moved = {name: record.pop(name, None) for name in names}
    said = {name: value for name, value in moved.items() if value not in (None, [], "")}
    return json.dumps({**record, **({"fields": said} if said else {})}, ensure_ascii=False) + "\n"


def _with(name: str, fields: Mapping[str, Settings], *settings: str) -> Ablation:
    return Ablation("fields", name, (f"features.fields={inline_table(fields)}", *settings) if fields else settings)


def tibkat(data: Path) -> Path:
    return with_fields(data / "tibkat-gnd-en", BUILD / "tibkat-gnd-en-fields", ("type", "domains"))


_TYPE: dict[str, Settings] = {"type": {"kind": "categorical", "tower": "query"}}
_DOMAINS: dict[str, Settings] = {"domains": {"kind": "multivalent", "tower": "query"}}
_BAG: dict[str, Settings] = {"history": {"kind": "multivalent", "tower": "query"}}
_SEQUENCE: dict[str, Settings] = {"history": {"kind": "history", "tower": "query"}}
_LIKE: dict[str, Settings] = {"history": {"kind": "history", "tower": "query", "like": "item"}}
_USER: dict[str, Settings] = {"user": {"kind": "categorical", "tower": "query"}}
_ITEM: dict[str, Settings] = {"item": {"kind": "categorical", "tower": "label"}}
_GENRES: dict[str, Settings] = {"genres": {"kind": "multivalent", "tower": "label"}}
_SEPARATE = "features.separate=true"
COMPARED = (
    Compared(
        "tibkat-gnd-en",
        tibkat,
        (),
        (
            _with("text alone", {}),
            _with("text and type", _TYPE),
            _with("text and domains (assigned by hand)", _DOMAINS),
            _with("text, type and domains", {**_TYPE, **_DOMAINS}),
            _with("text alone, a reader each", {}, _SEPARATE),
            _with("text and type, a reader each", _TYPE, _SEPARATE),
        ),
    ),
    Compared(
        "movielens-latest-small",
        lambda data: movielens(data, _HISTORY),
        ("training.epochs=5", "negatives.sampled=1024", "memory.mode=off"),
        (
            _with("user", _USER),
            _with("history as a bag", _BAG),
            _with("history", _SEQUENCE),
            _with("history, user", {**_SEQUENCE, **_USER}),
            _with("history; genres of the label", {**_SEQUENCE, **_GENRES}),
            _with("history; item and genres of the label", {**_SEQUENCE, **_ITEM, **_GENRES}),
            _with("history like item; item and genres of the label", {**_LIKE, **_ITEM, **_GENRES}),
            _with("history, a reader each", _SEQUENCE, _SEPARATE),
            _with("history; item and genres of the label, a reader each", {**_SEQUENCE, **_ITEM, **_GENRES}, _SEPARATE),
            _with("history like item; item and genres, a reader each", {**_LIKE, **_ITEM, **_GENRES}, _SEPARATE),
        ),
    ),
)


def measured(group: Sequence[Ablation], folder: Path, dataset: str, common: list[str], seed: int) -> list[Row]:
    """One training with one seed, as each of its configurations."""
    found = measure(group, folder, dataset, [*common, f"training.seed={seed}"], None)
    return [
        Row(
            *(row.dataset, row.name, seed, row.settings, train_options(common)),
            *(row.figures, row.judged, row.costs, row.machine),
        )
        for row in found
    ]


def page(rows: Sequence[Row]) -> str:
    """The results in Markdown, a table for each dataset: means over seeds, ± their standard deviation."""
    lines = [
        "# What fields are worth",
        "",
        "Written by `benchmarks/fields.py`; `fields.json` has machine, versions and settings. Percent, on dev, from",
        "the exported bundle: the mean over seeds ± their standard deviation, where there are several. Configurations",
        "of a table had the same budget. Domains are given by librarians: figures with them hold only where that is",
        "done first.",
    ]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found = [row for row in rows if row.dataset == dataset]
        lines += [
            "",
            f"## {dataset}",
            "",
            f"{found[0].judged:,} dev rows; {' '.join(found[0].budget) or 'defaults'}.",
            "",
        ]
        lines += [
            f"| {' | '.join(('fields', *_SHOWN, 'seeds', 'train s'))} |",
            "| --- |" + " ---: |" * (len(_SHOWN) + 2),
        ]
        names = list(dict.fromkeys(row.name for row in found))
        means = {name: {column: _values(found, name, column) for column in _SHOWN} for name in names}
        best = {column: max(fmean(means[name][column]) for name in names) for column in _SHOWN}
        for name in names:
            cells = [_cell(means[name][column], best[column]) for column in _SHOWN]
            same = [row for row in found if row.name == name]
            seconds = fmean(row.costs["train"]["seconds"] for row in same)
            lines.append(f"| {' | '.join((name, *cells, str(len(same)), f'{seconds:.0f}'))} |")
    return "\n".join(lines) + "\n"


def _values(rows: Sequence[Row], name: str, column: str) -> list[float]:
    return [row.figures[column] for row in rows if row.name == name]


def _cell(values: Sequence[float], best: float) -> str:
    mean = f"{fmean(values):.1f}"
    shown = f"**{mean}**" if mean == f"{best:.1f}" else mean
    return f"{shown} ± {stdev(values):.1f}" if len(values) > 1 else shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the datasets")
    parser.add_argument("--only", nargs="+", choices=[compared.dataset for compared in COMPARED])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=1, help="seeds; 3 for MovieLens, whose dev is small")
    parser.add_argument("--list", action="store_true", help="show the runs and stop")
    arguments = parser.parse_args()
    failed = []
    for compared in COMPARED:
        if arguments.only and compared.dataset not in arguments.only:
            continue
        common = [*compared.common, *arguments.settings]
        groups = runs_of(compared.configurations, common)
        for group in groups:
            print(f"{compared.dataset}: {'; '.join(ablation.name for ablation in group)}", flush=True)
        if arguments.list:
            continue
        folder = compared.corpus(arguments.data)
        for seed, group in ((seed, group) for seed in range(arguments.repeats) for group in groups):
            try:
                rows = measured(group, folder, compared.dataset, common, seed)
            except SystemExit as error:
                # One that fails does not cost the others their hours.
                failed.append(f"{compared.dataset}: {group[0].name}, seed {seed} ({error})")
                continue
            keep_rows(ROWS, rows, lambda row: (row.dataset, row.name, row.seed))
            write_text(PAGE, page(read_rows(ROWS, Row)))
    if failed:
        sys.exit(f"without a result: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
