"""The report's plots: inline SVG whose colours are the page's, so that they follow light and dark mode."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import Bucket
from training.metrics import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib draws in colours that stand for the page's; they are exchanged in the finished SVG.
_INK, _SOFT, _LINE, _ACCENT, _WARM = "#000001", "#000002", "#000003", "#000004", "#000005"
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _LINE: "--line", _ACCENT: "--accent", _WARM: "--warm"}
_SETTINGS: Any = {  # the stubs want its keys as literals
    "svg.fonttype": "none",
    "svg.hashsalt": "labelspace",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.color": _LINE,
    "ytick.labelcolor": _SOFT,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
# Inches, for a plot in a row of two or of three: text then has the same size on the page.
_TWO, _THREE = (4.6, 2.9), (3.7, 2.9)
_BARS = 20


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG element with its heading and how to read it."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a learning curve: epochs (or other units) done, mean loss, dev figures in percent, maybe none."""

    x: float
    loss: float
    dev: dict[str, float]


def plot_learning(points: Sequence[CurvePoint], *, unit: str = "epoch") -> list[Plot]:
    """Loss, and dev figures where there are any; nothing without points."""
    if not points:
        return []
    plots = []
    said = f"{points[0].loss:.3f} at {unit} {points[0].x:g}, {points[-1].loss:.3f} at {unit} {points[-1].x:g}"
    with _drawing("loss", f"Line: training loss, {said}.") as (drawn, axes):
        axes.plot([point.x for point in points], [point.loss for point in points], color=_ACCENT, marker="o", ms=3.5)
        axes.set_ylim(bottom=0)
        _label(axes, unit, "loss")
    plots.append(Plot("Training loss", "Should fall and level off; a rise means that training went wrong.", drawn[0]))
    measured = [point for point in points if point.dev]
    if measured:
        said = ", ".join(f"{name} {value:.1f}" for name, value in measured[-1].dev.items())
        with _drawing("dev", f"Lines: figures on held-out rows; at the end {said}.") as (drawn, axes):
            for name, colour, style in zip(measured[0].dev, (_ACCENT, _WARM, _SOFT), ("-", "--", ":"), strict=False):
                known = [point for point in measured if name in point.dev]
                values = [point.dev[name] for point in known]
                axes.plot([point.x for point in known], values, style, color=colour, marker="o", ms=3.5, label=name)
            axes.legend(loc="lower right", ncols=3, handlelength=2.2)
            _label(axes, unit, "percent")
        caption = "Held-out rows, tower alone. Still rising at the end: train longer. Falling: fewer epochs would do."
        plots.append(Plot("Figures on dev", caption, drawn[0]))
    return plots


def plot_frequency(buckets: Sequence[Bucket]) -> list[Plot]:
    """R@10 within each bucket, and what each bucket contributes to P@5 and PSP@5."""
    buckets = [bucket for bucket in buckets if bucket.labels]
    recall = [bucket.figures["R@10"] for bucket in buckets]
    sure = [bucket.intervals.get("R@10") for bucket in buckets]
    below = [0.0 if found is None else max(value - found.low, 0.0) for value, found in zip(recall, sure, strict=True)]
    above = [0.0 if found is None else max(found.high - value, 0.0) for value, found in zip(recall, sure, strict=True)]
    plots = []
    with _drawing("recall", f"Bars: R@10 by training rows per label. {_said(buckets, recall)}", _THREE) as (
        drawn,
        axes,
    ):
        _bars(axes, buckets, recall, _ACCENT, np.array(above))
        if any(above):
            axes.errorbar(range(len(buckets)), recall, [below, above], fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
        _label(axes, "", "percent")
    caption = "Of the labels in this bucket that a row has, how many are among its first 10. Whiskers: 95% interval."
    plots.append(Plot("Found, by label frequency", caption, drawn[0]))
    for name, colour, caption in (
        ("P@5", _ACCENT, "Frequent labels decide plain precision; the bars add up to P@5."),
        ("PSP@5", _WARM, "Hits on rare labels weigh more here; the bars add up to PSP@5."),
    ):
        values = [bucket.contributions[name] for bucket in buckets]
        described = f"Bars: contribution to {name} by training rows per label. {_said(buckets, values)}"
        with _drawing(name.lower().replace("@", "-"), described, _THREE) as (drawn, axes):
            _bars(axes, buckets, values, colour, np.zeros(len(values)))
            _label(axes, "", "points")
        plots.append(Plot(f"What adds up to {name}", caption, drawn[0]))
    return plots


def plot_reliability(found: Reliability, places: int) -> Plot:
    """Reliability diagram of the probabilities of the first `places` labels."""
    kept = found.counts > 0
    said, true = found.said[kept], found.came_true[kept]
    described = "; ".join(f"said {x:.0%}, right {y:.0%}" for x, y in zip(said, true, strict=True))
    with _drawing("reliability", f"Points near the diagonal: {described}.") as (drawn, axes):
        axes.plot([0, 1], [0, 1], color=_SOFT, lw=1, ls="--")
        axes.vlines(said, np.minimum(said, true), np.maximum(said, true), color=_WARM, lw=2)
        sizes = 15 + 60 * np.sqrt(found.counts[kept] / max(found.counts.max(initial=0), 1))
        axes.plot(said, true, color=_ACCENT, lw=1.2)
        axes.scatter(said, true, s=sizes, color=_ACCENT, zorder=3)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
        _percent_axes(axes, "xy")
        axes.grid(axis="both")
        _label(axes, "probability that was served", "share that was right")
    caption = (
        f"On the dashed line a probability means what it says; below it the model is too sure. Mean gap (ECE) over the "
        f"first {places} labels: {100 * found.error:.1f} points. Larger dots stand for more predictions."
    )
    return Plot("Are the probabilities true?", caption, drawn[0])


def plot_probabilities(probabilities: NDArray[np.float32], hits: NDArray[np.bool_]) -> Plot:
    """How many right and wrong predictions have which probability; both (m,)."""
    edges = np.linspace(0, 1, _BARS + 1)
    right, wrong = (np.histogram(probabilities[mask], edges)[0] for mask in (hits, ~hits))
    described = (
        f"Bars: {right.sum():,} right and {wrong.sum():,} wrong predictions by probability, counts on a log scale."
    )
    with _drawing("probabilities", described) as (drawn, axes):
        width = 0.42 / _BARS
        for counts, shift, colour, name in ((wrong, 0.06, _WARM, "wrong"), (right, 0.52, _ACCENT, "right")):
            axes.bar(edges[:-1] + shift / _BARS, counts, width, align="edge", color=colour, label=name)
        # The limits first: a logarithmic scale finds none of its own when there are no counts.
        axes.set_ylim(bottom=0.7, top=3.0 * max(int(right.max()), int(wrong.max()), 10))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, place: _count(value))
        axes.yaxis.set_minor_locator(_no_ticks())
        axes.legend(loc="upper center", ncols=2, handlelength=1, handleheight=1)
        _percent_axes(axes, "x")
        _label(axes, "probability that was served", "predictions (log scale)")
    caption = "Wrong predictions should crowd on the left, right ones on the right: then a threshold can part them."
    return Plot("Right and wrong, by probability", caption, drawn[0])


def short_name(bucket: Bucket) -> str:
    if bucket.most == 0:
        return "unseen"
    if bucket.most is None:
        return f"{bucket.least}+"
    return f"{bucket.least}–{bucket.most}" if bucket.most > bucket.least else f"{bucket.least}"


def _said(buckets: Sequence[Bucket], values: Sequence[float]) -> str:
    return "; ".join(f"{short_name(bucket)}: {value:.1f}" for bucket, value in zip(buckets, values, strict=True)) + "."


def _bars(
    axes: Axes, buckets: Sequence[Bucket], values: Sequence[float], colour: str, above: NDArray[np.float64]
) -> None:
    """A bar a bucket, with its value; under it, its name and how many labels it has. above: whisker over each bar."""
    axes.bar(range(len(buckets)), values, 0.68, color=colour)
    highest = max([*(np.array(values) + above), 1.0])
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:.1f}", (place, value + above[place]), (0, 2.5), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_ylim(0, 1.14 * highest)
    names = [f"{short_name(bucket)}\n{_count(bucket.labels)}" for bucket in buckets]
    axes.set_xticks(range(len(buckets)), names, fontsize=8)
    axes.tick_params(axis="x", length=0)
    middle, half = (len(buckets) - 1) / 2, max(len(buckets), 4) / 2
    axes.set_xlim(middle - half - 0.1, middle + half + 0.1)
    axes.annotate(
        "training rows per label; below, how many labels", (0.5, 0), (0, -36), "axes fraction", "offset points",
        ha="center", fontsize=8, color=_SOFT,
    )  # fmt: skip


def _count(value: float) -> str:
    """A number of things, short."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}m" if value % 100_000 == 0 else f"{value / 1_000_000:.1f}m"
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value:,.0f}"


def _percent_axes(axes: Axes, which: str) -> None:
    ticks = np.linspace(0, 1, 6)
    names = [f"{tick:.0%}" for tick in ticks]
    if "x" in which:
        axes.set_xticks(ticks, names)
    if "y" in which:
        axes.set_yticks(ticks, names)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


@contextmanager
def _drawing(name: str, described: str, size: tuple[float, float] = _TWO) -> Iterator[tuple[list[str], Axes]]:
    """Axes to draw on; when the block ends, the list holds the SVG. described: for those who cannot see it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn: list[str] = []
    with rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        yield drawn, axes
        drawn.append(_to_svg(figure, name, described))


def _to_svg(figure: Figure, name: str, described: str) -> str:
    """The figure as an element for the page: the same bytes every time, no declarations, ids that are its own."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    # Inside HTML an SVG needs no namespaces, a fixed size would not shrink with the page, and a style element of its
    # own would hold for the whole page.
    _, _, body = written.getvalue().partition("<svg ")
    body = body[body.index(">") + 1 :].strip()
    body = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body.replace("xlink:href", "href"))
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    width, height = (72 * inches for inches in figure.get_size_inches())
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(described)}">\n{body}'
