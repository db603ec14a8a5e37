"""The results of the datasets benchmark as data and as one Markdown page, peers beside us.

python benchmarks/results_table.py      # writes benchmarks/results/datasets.md again from the JSON beside it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from index.files import write_json, write_text
from machine import RESULTS

COLUMNS = ("P@1", "nDCG@5", "PSP@5", "R@10", "R@100")
# The sets that averages are taken over; others have a table of their own only.
AVERAGED = ("debian-depends", "eurlex57k", "tibkat-gnd-en", "yso-finna-en")
DATASETS, PEERS, PAGE = RESULTS / "datasets.json", RESULTS / "peers.json", RESULTS / "datasets.md"

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Result:
    """One configuration on one dataset, from the exported bundle; figures in percent.

    fingerprint: of the corpus. figures: on the `judged` rows with labels among `rows` drawn from test, those the peers
    are judged on. evaluation: on all test rows, as `labelspace evaluate --json` writes it. costs: seconds and peak_gb
    of each verb. ms_per_query: one text at a time. options: of `labelspace train`; config: all it was trained with.
    bundle: what the manifest says of ranking, index and memory.
    """

    dataset: str
    configuration: str
    fingerprint: str
    rows: int
    judged: int
    figures: dict[str, float]
    evaluation: dict[str, Any]
    costs: dict[str, dict[str, float]]
    ms_per_query: float
    sizes: dict[str, int]
    options: list[str]
    config: dict[str, Any]
    bundle: dict[str, Any]
    machine: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One peer on one split of one dataset; figures in percent. Costs are None where the figures are quoted."""

    dataset: str
    peer: str
    fingerprint: str
    split: str
    rows: int
    judged: int
    figures: dict[str, float]
    train_seconds: float | None = None
    ms_per_query: float | None = None
    peak_gb: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


# Measured elsewhere, on the same 4,000 rows and with the same metrics; not run here because PECOS pins numpy below 2.
QUOTED = tuple(
    PeerResult(name, "PECOS XR-Linear (quoted)", "", "test", 4000, 4000, dict(zip(COLUMNS, figures, strict=True)))
    for name, figures in {
        "debian-depends": (68.4, 55.3, 17.4, 52.4, 62.0),
        "eurlex57k": (91.6, 81.9, 64.7, 84.8, 91.9),
        "tibkat-gnd-en": (42.4, 40.5, 24.5, 48.5, 59.0),
        "yso-finna-en": (37.6, 33.6, 30.6, 40.1, 55.0),
    }.items()
)


def read_rows(path: Path, kind: type[_Row]) -> list[_Row]:
    """The dataclasses that `keep_rows` has written; none where there is no file yet."""
    return [kind(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def keep_rows(path: Path, new: Sequence[_Row], key: Callable[[_Row], object]) -> list[_Row]:
    """Write `new` dataclasses into the list at `path`, each in the place of the one with its key, or at the end."""
    rows: dict[object, _Row] = {key(row): row for row in read_rows(path, type(new[0]))} if new else {}
    rows.update({key(row): row for row in new})
    if new:
        write_json(path, [asdict(row) for row in rows.values()])  # type: ignore[call-overload]
    return list(rows.values())


def strongest(peers: Sequence[PeerResult]) -> dict[str, float]:
    """The best peer's figure in each column; a column that no peer has is left out."""
    return {
        column: max(peer.figures[column] for peer in peers if column in peer.figures)
        for column in COLUMNS
        if any(column in peer.figures for peer in peers)
    }


def differences(figures: Mapping[str, float], peers: Sequence[PeerResult]) -> dict[str, float]:
    """Points above (or below) the strongest peer of each column."""
    return {column: figures[column] - best for column, best in strongest(peers).items() if column in figures}


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each column that every row has."""
    shared = [column for column in COLUMNS if rows and all(column in row for row in rows)]
    return {column: sum(row[column] for row in rows) / len(rows) for column in shared}


def peers_of(result: Result, peers: Sequence[PeerResult]) -> list[PeerResult]:
    """The peers judged on the same rows of the same corpus, and the quoted ones of its name."""
    measured = [
        peer
        for peer in peers
        if (peer.dataset, peer.split, peer.fingerprint, peer.rows)
        == (result.dataset, "test", result.fingerprint, result.rows)
    ]
    quoted = [peer for peer in QUOTED if (peer.dataset, peer.rows) == (result.dataset, result.rows)]
    return measured + quoted


def page(results: Sequence[Result], peers: Sequence[PeerResult]) -> str:
    """The whole page in Markdown."""
    lines = [
        "# Quality beside peers",
        "",
        "Written by `benchmarks/datasets.py`; the figures with machine, versions, commit and settings are in",
        "`datasets.json` and `peers.json`. Percent; PSP with the propensity of the training counts, A=0.55, B=1.5.",
        "Everything is chosen on dev; test is read from the exported bundle. Best of a column in bold.",
        "Seconds and GB are of training (whole process, reading and features included), ms are of one query at a time.",
    ]
    for dataset in dict.fromkeys(result.dataset for result in results):
        lines += ["", *_dataset_part([result for result in results if result.dataset == dataset], peers)]
    for configuration in dict.fromkeys(result.configuration for result in results):
        lines += _average_part([result for result in results if result.configuration == configuration], peers)
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Write the page again from what is kept."""
    write_text(PAGE, page(read_rows(DATASETS, Result), read_rows(PEERS, PeerResult)))


def _dataset_part(results: Sequence[Result], peers: Sequence[PeerResult]) -> list[str]:
    sizes, lines = results[0].sizes, [f"## {results[0].dataset}"]
    lines += ["", f"{sizes['train']:,} training queries, {sizes['test']:,} test queries, {sizes['labels']:,} labels."]
    beside = list({peer.peer: peer for result in results for peer in peers_of(result, peers)}.values())
    best = _best([result.figures for result in results] + [peer.figures for peer in beside])
    lines += ["", *_head(f"{results[0].judged:,} test rows")]
    for peer in beside:
        costs = (_number(peer.train_seconds), _number(peer.peak_gb), _number(peer.ms_per_query))
        lines.append(_line(peer.peer, _figures(peer.figures, best), costs))
    for result in results:
        train = result.costs["train"]
        costs = (_number(train["seconds"]), _number(train["peak_gb"]), _number(result.ms_per_query))
        lines.append(_line(f"labelspace, {result.configuration}", _figures(result.figures, best), costs))
        own = peers_of(result, peers)
        if own:
            lines.append(_line("– against the strongest peer", _signed(differences(result.figures, own)), ("",) * 3))
        lines.append(_all_rows(result))
    return lines


def _all_rows(result: Result) -> str:
    """The line with the figures on every judged test row and, where they were taken, 95 % intervals."""
    metrics = result.evaluation["metrics"]
    intervals = result.evaluation.get("intervals") or {}
    judged = result.evaluation["rows"] - result.evaluation["rows_without_labels"]
    cells = []
    for column in COLUMNS:
        interval = intervals.get(column)
        spread = f" ± {(interval['high'] - interval['low']) / 2:.1f}" if interval else ""
        cells.append(f"{metrics[column]:.1f}{spread}" if column in metrics else "–")
    return _line(f"– on all {judged:,} rows", cells, ("",) * 3)


def _average_part(results: Sequence[Result], peers: Sequence[PeerResult]) -> list[str]:
    """Means over the averaged sets that this configuration and some peer have figures for."""
    sets = [(result, own) for result in results if result.dataset in AVERAGED and (own := peers_of(result, peers))]
    if len(sets) < 2:
        return []
    names = dict.fromkeys(peer.peer for _, own in sets for peer in own)
    rows = {
        name: [peer.figures for _, own in sets for peer in own if peer.peer == name]
        for name in names
        if all(any(peer.peer == name for peer in own) for _, own in sets)
    }
    averages = {name: means(figures) for name, figures in rows.items()}
    title = f"labelspace, {results[0].configuration}"
    averages[title] = means([result.figures for result, _ in sets])
    best = _best(list(averages.values()))
    gaps = [differences(result.figures, own) for result, own in sets]
    names_of_sets = ", ".join(result.dataset for result, _ in sets)
    lines = ["", f"## Mean of {len(sets)} sets: {results[0].configuration}", "", f"Over {names_of_sets}.", ""]
    lines += _head("mean", costs=False)
    lines += [_line(name, _figures(figures, best), ()) for name, figures in averages.items()]
    lines.append(_line("– mean difference to the strongest peer of each set", _signed(means(gaps)), ()))
    won = [f"{sum(gap.get(column, -1) > 0 for gap in gaps)} of {len(gaps)}" for column in COLUMNS]
    lines.append(_line("– sets ahead of the strongest peer", won, ()))
    return lines


def _best(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The best figure of each column as it is printed, so that what looks equal is bold together."""
    found = {column: [row[column] for row in rows if column in row] for column in COLUMNS}
    return {column: f"{max(values):.1f}" for column, values in found.items() if values}


def _figures(figures: Mapping[str, float], best: Mapping[str, str]) -> list[str]:
    texts = {column: f"{figures[column]:.1f}" for column in COLUMNS if column in figures}
    bold = {column for column, text in texts.items() if text == best.get(column)}
    return [f"**{texts[column]}**" if column in bold else texts.get(column, "–") for column in COLUMNS]


def _signed(figures: Mapping[str, float]) -> list[str]:
    return [f"{figures[column]:+.1f}" if column in figures else "–" for column in COLUMNS]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _head(title: str, *, costs: bool = True) -> list[str]:
    names = (title, *COLUMNS, *(("train s", "train GB", "ms a query") if costs else ()))
    return [f"| {' | '.join(names)} |", f"| --- |{' ---: |' * (len(names) - 1)}"]


def _line(title: str, cells: Sequence[str], costs: Sequence[str]) -> str:
    return f"| {' | '.join((title, *cells, *costs))} |"


if __name__ == "__main__":
    write_page()
