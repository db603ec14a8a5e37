"""What each part is worth: configurations that differ in one thing, trained at the same budget, judged on dev.

    python benchmarks/ablations.py CORPUS [--only GROUP]… [--set KEY=VALUE]… [--time-limit SECONDS] [--list]
                                   [--train-rows N]

`--set` (training.epochs=3, say) and `--time-limit` are the budget and hold for every configuration. Each is trained,
exported and measured on dev from its bundle; test is not read. A corpus without dev gets one held out of train.
Configurations that come to the same settings are trained once. Results go to benchmarks/results/ablations.json, each
in the place of the one of the same corpus, group and name, and to ablations.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import BUILD, corpus_folder, figures_of, judged_of, slug, train_options, with_dev
from index.files import write_text
from machine import RESULTS, costs, describe, run
from results_table import COLUMNS, keep_rows, read_rows
from thinning import thinned_corpus
from training.config import load_config

ROWS, PAGE = RESULTS / "ablations.json", RESULTS / "ablations.md"


@dataclass(frozen=True, slots=True)
class Ablation:
    """One configuration of a group. dim: leading dimensions that are exported; None: all."""

    group: str
    name: str
    settings: tuple[str, ...] = ()
    seeds: int = 1
    dim: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What came out, in percent of the `judged` dev rows. budget: the options that all configurations share."""

    dataset: str
    group: str
    name: str
    settings: list[str]
    seeds: int
    dim: int | None
    budget: list[str]
    figures: dict[str, float]
    judged: int
    costs: dict[str, dict[str, float]]
    machine: dict[str, Any] = field(default_factory=dict)


def _each(group: str, *names: str, key: str) -> list[Ablation]:
    return [Ablation(group, name, (f'{key}="{name}"',)) for name in names]


def _label(free: bool, centroid: bool) -> tuple[str, ...]:
    return (f"label.free={str(free).lower()}", f"label.centroid={str(centroid).lower()}")


NESTED = "loss.prefixes=[64,128,256]"
SEPARATE = ("features.separate=true", "tower.dropout=0.3")
ABLATIONS = (
    *_each(
        "loss",
        *("decoupled_softmax", "soft_top_k", "softmax", "softmax_one_positive", "softmax_without_positives", "sigmoid"),
        key="loss.name",
    ),
    *_each("negatives", "in_batch", "uniform", "clustered", "mined", "all", "cached", key="negatives.kind"),
    Ablation("label vector", "text", _label(free=False, centroid=False)),
    Ablation("label vector", "text and free vector", _label(free=True, centroid=False)),
    Ablation("label vector", "text and centroid", _label(free=False, centroid=True)),
    Ablation("label vector", "text, centroid and free vector", _label(free=True, centroid=True)),
    Ablation("label texts as queries", "no", ("label.text_queries=false",)),
    Ablation("label texts as queries", "yes", ("label.text_queries=true",)),
    *_each("example memory", "off", "on", "head", key="memory.mode"),
    Ablation("mixup", "off", ("loss.mixup=0.0",)),
    Ablation("mixup", "0.4", ("loss.mixup=0.4",)),
    Ablation("seeds", "1", seeds=1),
    Ablation("seeds", "2", seeds=2),
    Ablation("dimensions", "256 of 256, nested", ("tower.dim=256", NESTED)),
    Ablation("dimensions", "128 of 256, nested", ("tower.dim=256", NESTED), dim=128),
    Ablation("dimensions", "64 of 256, nested", ("tower.dim=256", NESTED), dim=64),
    Ablation("dimensions", "256 alone", ("tower.dim=256", "loss.prefixes=[]")),
    Ablation("dimensions", "128 alone", ("tower.dim=128", "loss.prefixes=[]")),
    Ablation("dimensions", "64 alone", ("tower.dim=64", "loss.prefixes=[]")),
    Ablation("subword pieces", "none", ("features.pieces=0",)),
    Ablation("subword pieces", "8,000 beside words and n-grams", ("features.pieces=8000",)),
    Ablation("subword pieces", "8,000 in place of n-grams", ("features.pieces=8000", "features.ngrams=[]")),
    Ablation("bags", "one, rows of 256", ("features.separate=false",)),
    Ablation("bags", "one for each kind of feature, rows of 32", (*SEPARATE, "tower.row=32")),
    Ablation("bags", "one for each kind of feature, rows of 64", (*SEPARATE, "tower.row=64")),
    Ablation("look-ups", "1", ("features.probes=1",)),
    Ablation("look-ups", "2", ("features.probes=2",)),
    Ablation("features unseen in training", "keep", ('features.unseen="keep"',)),
    Ablation("features unseen in training", "ignore", ('features.unseen="ignore"',)),
)


def runs_of(ablations: Sequence[Ablation], common: Sequence[str]) -> list[list[Ablation]]:
    """The ablations by the run they need: those of one list come to the same settings and number of seeds.

    Raises InputError for a setting that there is not, before anything is trained.
    """
    runs: dict[str, list[Ablation]] = {}
    for ablation in ablations:
        config = asdict(load_config(None, [*common, *ablation.settings]))
        runs.setdefault(json.dumps([config, ablation.seeds], default=str), []).append(ablation)
    return list(runs.values())


def page(rows: Sequence[Row]) -> str:
    """The results in Markdown, a table for each corpus and group, best of a column in bold."""
    lines = [
        "# Ablations",
        "",
        "Written by `benchmarks/ablations.py`; `ablations.json` has machine, versions and settings. Percent, on dev,",
        "from the exported bundle. Configurations of a table differ in what is named alone, and had the same budget.",
    ]
    for dataset, group in dict.fromkeys((row.dataset, row.group) for row in rows):
        found = [row for row in rows if (row.dataset, row.group) == (dataset, group)]
        columns = (*COLUMNS, "unseen R@10")
        best = {column: f"{max(row.figures[column] for row in found):.1f}" for column in columns}
        budget = f"; {' '.join(found[0].budget)}" if found[0].budget else ""
        lines += ["", f"## {dataset}: {group}", "", f"{found[0].judged:,} dev rows{budget}.", ""]
        lines += [f"| {' | '.join((group, *columns, 'train s', 'train GB'))} |", "| --- |" + " ---: |" * 8]
        for row in found:
            texts = [(f"{row.figures[column]:.1f}", best[column]) for column in columns]
            cells = [f"**{text}**" if text == top else text for text, top in texts]
            train = row.costs["train"]
            spent = (f"{train['seconds']:.0f}", f"{train['peak_gb']:.1f}")
            lines.append(f"| {' | '.join((row.name, *cells, *spent))} |")
    return "\n".join(lines) + "\n"


def measure(
    group: Sequence[Ablation], folder: Path, dataset: str, common: list[str], time_limit: float | None
) -> list[Row]:
    """Train one run, export and judge it as each of its ablations asks."""
    first = group[0]
    work = BUILD / "ablations" / slug(dataset) / slug(f"{first.group} {first.name}")
    shutil.rmtree(work, ignore_errors=True)
    options = train_options([*common, *first.settings], None, first.seeds, time_limit)
    train, _ = run("train", folder, "--out", work / "run", *options)
    rows: list[Row] = []
    exported: dict[int | None, tuple[dict[str, Any], dict[str, dict[str, float]]]] = {}
    for ablation in group:
        if ablation.dim not in exported:
            collection, report = work / f"collection-{ablation.dim}", work / f"dev-{ablation.dim}.json"
            prefix = [] if ablation.dim is None else ["--dim", str(ablation.dim)]
            export, _ = run("export", work / "run", "--to", collection, *prefix)
            options_of_evaluate = ("--split", "dev", "--bootstrap", "0", "--json", report)
            evaluate, _ = run("evaluate", collection, folder, *options_of_evaluate)
            spent = costs({"train": train, "export": export, "evaluate": evaluate})
            exported[ablation.dim] = (json.loads(report.read_text()), spent)
        evaluation, spent = exported[ablation.dim]
        rows.append(
            Row(
                dataset,
                ablation.group,
                ablation.name,
                list(ablation.settings),
                ablation.seeds,
                ablation.dim,
                train_options(common, None, 1, time_limit),
                figures_of(evaluation),
                judged_of(evaluation),
                spent,
                describe(),
            )
        )
    shutil.rmtree(work)
    return rows


def main() -> None:
    groups = tuple(dict.fromkeys(ablation.group for ablation in ABLATIONS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--name", help="of the dataset; the folder's name if not given")
    parser.add_argument("--only", action="append", choices=groups, help="this group; repeatable")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--train-rows", type=int, help="draw so many records of train, and 3,000 of dev")
    parser.add_argument("--list", action="store_true", help="show the runs and stop")
    arguments = parser.parse_args()
    wanted = [ablation for ablation in ABLATIONS if ablation.group in (arguments.only or groups)]
    runs = runs_of(wanted, arguments.settings)
    for number, group in enumerate(runs, 1):
        print(f"run {number}: {'; '.join(f'{ablation.group}: {ablation.name}' for ablation in group)}")
    if arguments.list:
        return
    folder, name = corpus_folder(arguments.corpus)
    name = arguments.name or name
    folder = with_dev(folder, name)
    if arguments.train_rows:
        folder = thinned_corpus(
            folder, BUILD / "thinned" / f"{slug(name)}-{arguments.train_rows}", arguments.train_rows
        )
        name = f"{name}, {arguments.train_rows:,} records"
    failed = []
    for group in runs:
        try:
            rows = measure(group, folder, name, arguments.settings, arguments.time_limit)
        except SystemExit as error:
            # One that fails does not cost the others their hours.
            failed.append(f"{group[0].group}: {group[0].name} ({error})")
            continue
        keep_rows(ROWS, rows, lambda row: (row.dataset, row.group, row.name))
        write_text(PAGE, page(read_rows(ROWS, Row)))
    print(PAGE.read_text() if PAGE.exists() else "")
    if failed:
        sys.exit(f"without a result: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
