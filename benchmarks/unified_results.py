"""What the table-size benchmark has measured: kept in one file, summed up on one page."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from index.files import write_json, write_text
from machine import RESULTS
from unified_tasks import COLLISIONLESS, METHODS, Method

FILE, PAGE = RESULTS / "unified_embedding.json", RESULTS / "unified_embedding.md"
TENTH = 0.1
_BYTES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One training. size: rows of the whole width relative to `vocabulary`, the distinct values of train. rows, width:
    of the table itself. queries: of test. dev, test: the figure in percent. machine: its place in Results.machines."""

    dataset: str
    method: str
    size: float
    seed: int
    rows: int
    width: int
    vocabulary: int
    queries: int
    dev: float
    test: float
    seconds: float
    machine: int = 0

    @property
    def bytes(self) -> int:
        """Of the table in float32."""
        return self.rows * self.width * _BYTES

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.dataset, self.method, self.size, self.seed


@dataclass(slots=True)
class Results:
    """The file. settings: of each dataset, for which its rows were measured; figures: what each is judged by."""

    machines: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Empty where there is no file yet."""
        if not path.exists():
            return cls()
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "rows": [Row(**row) for row in values["rows"]]})

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    def expect(self, dataset: str, figure: str, settings: Sequence[str]) -> None:
        """Rows of a dataset that were measured under other settings are no longer worth keeping."""
        if self.settings.get(dataset) != list(settings):
            self.rows = [row for row in self.rows if row.dataset != dataset]
        self.settings[dataset], self.figures[dataset] = list(settings), figure

    def machine(self, described: dict[str, Any]) -> int:
        """Its place in the list, which it gets into if it differs in anything but the date."""
        timeless = [{**one, "date": ""} for one in self.machines]
        if {**described, "date": ""} not in timeless:
            self.machines.append(described)
            return len(self.machines) - 1
        return timeless.index({**described, "date": ""})

    def add(self, row: Row) -> None:
        self.rows = [*(one for one in self.rows if one.key != row.key), row]


@dataclass(frozen=True, slots=True)
class Point:
    """Test figures of all seeds of one method at one size; spread: their standard deviation, 0 of a single one."""

    method: str
    size: float
    bytes: float
    mean: float
    spread: float
    seeds: int


def points(rows: Iterable[Row]) -> list[Point]:
    """Of the rows of one dataset, by method and then by size."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.size), []).append(row)
    order = [method.name for method in METHODS]
    found = []
    for (method, size), group in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        figures = [row.test for row in group]
        spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
        width = statistics.fmean(row.bytes for row in group)
        found.append(Point(method, size, width, statistics.fmean(figures), spread, len(figures)))
    return found


def front(of: Sequence[Point]) -> list[Point]:
    """The Pareto front, smallest table first: no other point is at least as good and as small, and better in one."""
    kept = [
        point
        for point in of
        if not any(
            other.bytes <= point.bytes
            and other.mean >= point.mean
            and (other.bytes, other.mean) != (point.bytes, point.mean)
            for other in of
        )
    ]
    return sorted(kept, key=lambda point: (point.bytes, point.method))


def gains(rows: Sequence[Row], method: str, over: str) -> dict[float, tuple[float, float]]:
    """By size: mean and standard error of what `method` is better by than `over` at the same seed, in points."""
    figures = {(row.method, row.size, row.seed): row.test for row in rows}
    found = {}
    for size in sorted({row.size for row in rows}):
        seeds = sorted({row.seed for row in rows if row.size == size})
        pairs = [(figures.get((method, size, seed)), figures.get((over, size, seed))) for seed in seeds]
        differences = [one - other for one, other in pairs if one is not None and other is not None]
        if differences:
            error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
            found[size] = (statistics.fmean(differences), error)
    return found


def pairs() -> list[tuple[Method, Method]]:
    """(multiplexed, a table per feature) of each kind of look-up, for either way to size the tables."""
    return [
        (together, apart)
        for together in METHODS
        for apart in METHODS[1:]
        if together.multiplexed and not apart.multiplexed and together.look_up == apart.look_up
    ]


def page(results: Results) -> str:
    """All of it in Markdown, with the answers to: on the front? less lost at a tenth of the bytes?"""
    lines = [
        "# Accuracy against table size",
        "",
        "Written by `benchmarks/unified_embedding.py`; `unified_embedding.json` has every run, settings and machine.",
        "Test, percent: mean ± standard deviation over seeds, which are of the hashes, too. A column is a table of so",
        "many bytes: rows of the full width relative to the distinct values of train. Settings were chosen on dev and",
        "are equal for all. Best of a column in bold.",
    ]
    for dataset, figure in results.figures.items():
        rows = [row for row in results.rows if row.dataset == dataset]
        if rows:
            lines += ["", f"## {dataset}: {figure}", "", *_dataset_part(rows, figure)]
    return "\n".join(lines) + "\n"


def write_page(results: Results) -> None:
    write_text(PAGE, page(results))


def _dataset_part(rows: Sequence[Row], figure: str) -> list[str]:
    found = points(rows)
    sizes = sorted({row.size for row in rows})
    vocabulary = rows[0].vocabulary
    exact = next((point for point in found if point.method == COLLISIONLESS.name), None)
    best = {size: max(point.mean for point in found if point.size == size) for size in sizes}
    about = f"{vocabulary:,} distinct values, {len({row.seed for row in rows})} seeds, {rows[0].queries:,} test queries"
    if exact is not None and figure != "AUC":
        # Of which queries are asked: seeds do not show it, for they are asked the same ones.
        share = exact.mean / 100
        error = 100 * (share * (1 - share) / rows[0].queries) ** 0.5
        about += f"; a figure's standard error by the choice of queries is about {error:.1f} points"
    lines = [f"{about}.", ""]
    lines += [f"| method | {' | '.join(f'{size:g}' for size in sizes)} |", "| --- |" + " ---: |" * len(sizes)]
    for method in dict.fromkeys(point.method for point in found):
        at = {point.size: point for point in found if point.method == method}
        cells = [_cell(at.get(size), best[size]) for size in sizes]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", "Multiplexed above tables per feature of the same look-up, points, ± standard error over seeds:", ""]
    lines += [f"| above | {' | '.join(f'{size:g}' for size in sizes)} |", "| --- |" + " ---: |" * len(sizes)]
    for together, apart in pairs():
        by_size = gains(rows, together.name, apart.name)
        cells = [f"{by_size[size][0]:+.2f} ± {by_size[size][1]:.2f}" if size in by_size else "" for size in sizes]
        lines.append(f"| {apart.name} | {' | '.join(cells)} |")
    on = [f"{point.method} at {point.size:g} ({point.mean:.2f})" for point in front(found)]
    lines += ["", f"Pareto front: {'; '.join(on)}.", ""]
    if exact is not None:
        lines.append("Below collisionless at a tenth of its bytes, points: " + _losses(found, exact) + ".")
    return lines


def _losses(found: Sequence[Point], exact: Point) -> str:
    at = [point for point in found if point.size == TENTH]
    return "; ".join(f"{point.method} {exact.mean - point.mean:.2f}" for point in at) or "not measured"


def _cell(point: Point | None, best: float) -> str:
    if point is None:
        return ""
    mean = f"{point.mean:.2f}"
    return f"{f'**{mean}**' if mean == f'{best:.2f}' else mean} ± {point.spread:.2f}"
