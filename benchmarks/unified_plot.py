"""The picture of accuracy against table size: a panel for each dataset, a line for each method."""

from __future__ import annotations

from pathlib import Path

from index.files import replacing
from unified_results import Results, points
from unified_tasks import COLLISIONLESS, METHODS

PICTURE = Path("docs") / "images" / "unified-embedding.svg"
# Okabe and Ito's colours, told apart with every kind of colour vision: one for each kind of look-up.
COLOURS = {"hashing": "#0072B2", "multihash": "#D55E00", "quotient-remainder": "#009E73"}
MARKS = {"hashing": "o", "multihash": "s", "quotient-remainder": "^"}
_PLAIN = "#555555"


def draw(results: Results, path: Path = PICTURE) -> None:
    """An SVG; bars are the standard deviation over seeds, the level is what a table without collisions reaches."""
    import matplotlib

    matplotlib.use("svg")
    # The same points give the same bytes.
    matplotlib.rcParams.update({"svg.hashsalt": "labelspace", "svg.fonttype": "path", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    datasets = [name for name in results.figures if any(row.dataset == name for row in results.rows)]
    columns = min(3, max(1, len(datasets)))
    rows = -(-max(1, len(datasets)) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.6 * columns, 3.0 * rows + 0.6), layout="constrained", squeeze=False
    )
    for panel in axes.flat[len(datasets) :]:
        panel.set_visible(False)
    for panel, dataset in zip(axes.flat, datasets, strict=False):
        found = points(row for row in results.rows if row.dataset == dataset)
        for method in METHODS:
            at = [point for point in found if point.method == method.name]
            if not at:
                continue
            if method is COLLISIONLESS:
                mean, spread = at[0].mean, at[0].spread
                panel.axhline(mean, color=_PLAIN, linewidth=1, linestyle=":", label=method.name)
                panel.axhspan(mean - spread, mean + spread, color=_PLAIN, alpha=0.12, linewidth=0)
                continue
            kind = method.look_up
            panel.errorbar(
                [point.size for point in at],
                [point.mean for point in at],
                [point.spread for point in at],
                color=COLOURS[kind],
                marker=MARKS[kind],
                markerfacecolor=COLOURS[kind] if method.multiplexed else "white",
                linestyle="-" if method.multiplexed else "--",
                linewidth=1.2,
                markersize=4.5,
                capsize=2,
                label=method.name,
            )
        panel.set_title(dataset)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("table, relative to one row a value")
        panel.set_ylabel(f"{results.figures[dataset]}, percent of test")
        panel.grid(alpha=0.25)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    with replacing(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
    pyplot.close(figure)
