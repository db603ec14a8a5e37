"""The picture of labels added after the training: new labels above, trained ones below, a column for each dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from index.files import replacing

PICTURE = Path("docs") / "images" / "class-addition.svg"
# Okabe and Ito's colours, told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PANELS = (("new_recall", "R@10 of new labels, percent"), ("old_recall", "R@10 of trained labels, percent"))
LEVELS = {"fully trained": ":", "before": "--"}
NAMES = {"before": "before the addition", "served": "added, as served"}
LEAST_SPAN = 4.0
PLACES = {"0": 0, "1": 1, "5": 2, "20": 3, "all": 4}


def draw(rows: Sequence[dict[str, Any]], path: Path = PICTURE) -> None:
    """An SVG of rows as class_addition.json has them; levels are the two models without any addition."""
    import matplotlib

    matplotlib.use("svg")
    # The same points give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "labelspace", "svg.fonttype": "path", "font.size": 9})
    from matplotlib import pyplot

    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    ways = [way for way in dict.fromkeys(row["way"] for row in rows) if way not in LEVELS]
    figure, axes = pyplot.subplots(
        2, len(datasets), figsize=(3.2 * len(datasets), 5.2), layout="constrained", squeeze=False
    )
    for column, dataset in enumerate(datasets):
        own = [row for row in rows if row["dataset"] == dataset]
        for line, (key, name) in enumerate(PANELS):
            panel = axes[line][column]
            for way, style in LEVELS.items():
                if key == "new_recall" and way == "before":
                    continue
                level = next(row["figures"][key] for row in own if row["way"] == way)
                panel.axhline(level, color="#555555", linewidth=1, linestyle=style, label=NAMES.get(way, way))
            for way, colour in zip(ways, COLOURS, strict=False):
                points = [row for row in own if row["way"] == way]
                at = [PLACES["all" if row["shots"] is None else str(row["shots"])] for row in points]
                heights = [row["figures"][key] for row in points]
                panel.plot(at, heights, color=colour, marker="o", markersize=4, label=NAMES.get(way, way))
            panel.set_xticks(list(PLACES.values()), list(PLACES))
            panel.grid(alpha=0.25)
            low, high = panel.get_ylim()
            # Else a tenth of a point looks like a fall.
            if (lack := LEAST_SPAN - (high - low)) > 0:
                panel.set_ylim(low - lack / 2, high + lack / 2)
            if line == 0:
                panel.set_title(dataset)
            else:
                panel.set_xlabel("examples of a new label")
            if column == 0:
                panel.set_ylabel(name)
    handles, names = axes[1][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    with replacing(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)
