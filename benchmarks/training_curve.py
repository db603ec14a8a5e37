"""Quality against training time: one training per budget, judged on dev from its bundle, beside the peers.

    python benchmarks/training_curve.py CORPUS [--seconds 30 60 120 300 | --epochs 1 2 4] [--set KEY=VALUE]…

Time is the wall clock of the whole of `labelspace train`, and for the peers of features and training; reading the
corpus is in ours alone. A corpus without dev gets one held out of train; test is not read. Writes the points to
benchmarks/results/training_curve.json, in the place of those of the same corpus, and a picture to docs/images.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from datasets import BUILD, corpus_folder, figures_of, slug, train_options, with_dev
from index.files import replacing
from machine import RESULTS, costs, describe, run
from results_table import PeerResult, keep_rows

ROWS = RESULTS / "training_curve.json"
IMAGES = Path("docs") / "images"
SHOWN = ("P@1", "nDCG@5", "PSP@5", "R@10")
# Okabe and Ito's colours, told apart with every kind of colour vision; ours is the first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKS = ("o", "s", "^", "D")


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of ours by budget (options of `labelspace train`), and of the peers: seconds and figures in percent."""

    dataset: str
    judged_rows: int
    settings: list[str]
    points: list[dict[str, Any]]
    peers: list[dict[str, Any]]
    machine: dict[str, Any]


def measure_point(folder: Path, dataset: str, options: Sequence[str], budget: str, rows: int) -> dict[str, Any]:
    """Train to one budget, export, and judge on the dev rows that the peers are judged on."""
    work = BUILD / "curve" / slug(dataset) / slug(budget)
    shutil.rmtree(work, ignore_errors=True)
    report = work / "dev.json"
    train, _ = run("train", folder, "--out", work / "run", *options)
    export, _ = run("export", work / "run", "--to", work / "collection")
    evaluate = ("--split", "dev", "--rows", str(rows), "--bootstrap", "0", "--json", report)
    run("evaluate", work / "collection", folder, *evaluate)
    evaluation = json.loads(report.read_text())
    shutil.rmtree(work)
    spent = costs({"train": train, "export": export})
    return {"budget": budget, "seconds": round(train.seconds, 1), "figures": figures_of(evaluation), "costs": spent}


def peer_point(peer: PeerResult) -> dict[str, Any]:
    return {"peer": peer.peer, "seconds": peer.train_seconds, "figures": peer.figures}


def draw(curve: Curve, path: Path) -> None:
    """An SVG with a panel for each figure: our line, a mark for each peer, seconds on a logarithmic axis."""
    import matplotlib

    matplotlib.use("svg")
    # The same points give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "labelspace", "svg.fonttype": "path", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, axes = pyplot.subplots(1, len(SHOWN), figsize=(12, 3.2), layout="constrained")
    ours = sorted(curve.points, key=lambda point: float(point["seconds"]))
    for panel, name in zip(axes, SHOWN, strict=True):
        panel.plot(
            [point["seconds"] for point in ours],
            [point["figures"][name] for point in ours],
            color=COLOURS[0],
            marker=MARKS[0],
            label="labelspace",
        )
        for place, peer in enumerate(curve.peers, 1):
            mark, colour = MARKS[place % len(MARKS)], COLOURS[place % len(COLOURS)]
            label = peer["peer"]
            panel.plot([peer["seconds"]], [peer["figures"][name]], mark, color=colour, markersize=8, label=label)
            panel.axhline(peer["figures"][name], color=colour, linewidth=0.7, alpha=0.4)
        panel.set_title(name)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("training, s")
        panel.grid(alpha=0.25)
    axes[0].set_ylabel("percent of dev")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"{curve.dataset}: quality against training time", fontsize=10)
    with replacing(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--name", help="of the dataset; the folder's name if not given")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, nargs="+", default=[30.0, 60.0, 120.0, 300.0])
    budget.add_argument("--epochs", type=int, nargs="+")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--rows", type=int, default=peers.ROWS)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    folder, name = corpus_folder(arguments.corpus)
    name = arguments.name or name
    folder = with_dev(folder, name)
    if arguments.epochs:
        budgets = {
            f"{epochs} epochs": train_options([*arguments.settings, f"training.epochs={epochs}"])
            for epochs in arguments.epochs
        }
    else:
        budgets = {
            f"{seconds:g} s": train_options(arguments.settings, time_limit=seconds) for seconds in arguments.seconds
        }
    beside = [] if arguments.no_peers else peers.measure(folder, name, split="dev", rows=arguments.rows)
    points = [measure_point(folder, name, options, title, arguments.rows) for title, options in budgets.items()]
    shown = [peer_point(peer) for peer in beside]
    curve = Curve(name, arguments.rows, arguments.settings, points, shown, describe())
    keep_rows(ROWS, [curve], lambda row: row.dataset)
    picture = IMAGES / f"training-curve-{slug(name)}.svg"
    draw(curve, picture)
    for point in points:
        print(
            f"{point['budget']:>12}  {point['seconds']:7.1f} s",
            *(f"{key} {point['figures'][key]:.1f}" for key in SHOWN),
        )
    print(f"written to {ROWS} and {picture}")


if __name__ == "__main__":
    main()
