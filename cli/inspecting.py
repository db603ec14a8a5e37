"""`labelspace inspect`: what is in a run or a collection, and how healthy it is, as tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import log_option

if TYPE_CHECKING:
    from index.build import IndexReport
    from index.collection_report import BundleReport, CollectionReport
    from training.inspection import MemberHealth, RunInspection, TableUse


@click.command()
@click.argument("place", metavar="RUN|COLLECTION", type=click.Path(path_type=Path))
@click.option("--corpus", type=click.Path(path_type=Path), help="Compare a run's table with this corpus, not its own.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything to this file too.")
@log_option()
def inspect(place: Path, corpus: Path | None, json_file: Path | None, log: str | None) -> None:
    """Show what is in a RUN (settings, progress, how its table and readers are used) or in a COLLECTION (bundles, index
    and memory, sizes, changes)."""
    from index.errors import InputError
    from index.files import write_json

    report: RunInspection | CollectionReport
    if (place / "collection.json").exists():
        from index.collection_report import report_collection

        if corpus is not None:
            raise click.UsageError("--corpus goes with a run; `labelspace evaluate` measures a collection on one")
        report = report_collection(place, log=log)
        lines = format_collection(report)
    else:
        if not any((place / name).exists() for name in ("config.toml", "seed-0")):
            raise InputError(f"{place}: is neither a run (no config.toml) nor a collection (no collection.json)")
        from training.inspection import inspect_run

        report = inspect_run(place, corpus)
        lines = format_run(report)
    click.echo("\n".join(lines))
    if json_file is not None:
        write_json(json_file, report.to_json())


def format_run(run: RunInspection) -> list[str]:
    """The figures for a terminal."""
    lines = [f"run {run.run}: {run.labels:,} labels" + (f", begun from {run.begun_from}" if run.begun_from else "")]
    lines += _settings(run.settings)
    for member in run.members:
        lines += _member(member)
    if run.corpus is None:
        return [
            *lines,
            "",
            "the corpus of the run is not where it was; give it with --corpus to see how it uses the table",
        ]
    for use in run.tables:
        lines += _use(use, run.corpus)
    return lines


def _settings(settings: Mapping[str, object]) -> list[str]:
    rest = {name: value for name, value in settings.items() if name != "features"}
    features = settings["features"]
    assert isinstance(features, Mapping)  # noqa: S101 - training.inspection makes it so
    return [f"  settings: {_pairs(rest)}", f"  features: {_pairs(features)}"]


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in values.items() if value not in ((), [], {}, None))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return " ".join(f"{name} ({kind})" for name, kind in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join("*".join(one) if isinstance(one, (list, tuple)) else str(one) for one in value)
    return str(value)


def _member(member: MemberHealth) -> list[str]:
    dev = ", ".join(f"{name} {value:.1f}" for name, value in member.dev.items()) or "not measured"
    lines = [
        "",
        f"{member.run}: seed {member.seed}, {member.epochs} of {member.of_epochs} epochs in {member.seconds:.0f} s, "
        f"{member.parameters:,} parameters",
        f"  best epoch {member.best}: dev (tower alone) {dev}" if member.best else "  no epoch is complete yet",
    ]
    if member.tables:
        head = ("table", "rows", "width", "MB", "rows touched", "gate", "± sd")
        rows = [
            (one.tower, f"{one.rows:,}", f"{one.width}", f"{one.bytes / 1e6:.1f}", _percent(one.touched),
             f"{one.gate:+.3f}", f"{one.gate_spread:.3f}")
            for one in member.tables
        ]  # fmt: skip
        lines += _table(head, rows)
    for reader in member.readers:
        lines.append(
            f"  readers of {reader.tower}: mean overlap {reader.mean:.3f} (by chance {reader.chance:.3f}); most:"
        )
        lines += [f"    {value:.3f}  {one} and {other}" for one, other, value in reader.worst]
    return lines


def _use(use: TableUse, corpus: str) -> list[str]:
    lines = [
        "",
        f"table of {use.tower}, by the values of {corpus} (shares in percent of look-ups; in brackets by chance)",
    ]
    head = (
        "feature",
        "values",
        "rows",
        "load",
        "same row",
        "(chance)",
        "others'",
        "(chance)",
        "alike",
        "dev",
        "untouched",
    )
    rows = []
    for one in use.sharing:
        unmet = use.unmet.get(one.name)
        rows.append(
            (one.name, f"{one.values:,}", f"{one.rows:,}", f"{one.load:.2f}", _percent(one.same),
             f"({_percent(one.expected_same)})", _percent(one.others), f"({_percent(one.expected_others)})",
             _percent(one.alike), f"{unmet.look_ups:,}" if unmet else "-",
             _percent(unmet.untouched) if unmet and unmet.untouched is not None else "-")
        )  # fmt: skip
    return [
        *lines,
        *_table(head, rows),
        "  same row: another value of the feature has it; others': a value of another feature has it; alike: values",
        "  that have all rows of another; dev: look-ups of held-out queries; untouched: those of rows never trained",
    ]


def format_collection(collection: CollectionReport) -> list[str]:
    """The figures for a terminal."""
    changed = f"{collection.added:,} labels added, {collection.edited:,} edited, {collection.removed:,} removed"
    lines = [
        f"collection {collection.collection}: {collection.live:,} labels, {len(collection.bundles)} bundles",
        f"  {collection.changes:,} changes since the current bundle: {changed}",
    ]
    for bundle in collection.bundles:
        lines += _bundle(bundle)
    return lines


def _bundle(bundle: BundleReport) -> list[str]:
    lines = [
        "",
        f"bundle {bundle.bundle}{' (current)' if bundle.current else ''}, {bundle.created}: {bundle.labels:,} labels, "
        f"{bundle.examples:,} examples, dim {bundle.dim}, {bundle.bytes / 1e6:.1f} MB",
        f"  features: {_pairs(bundle.features)}",
        f"  index: {_index(bundle.index)}",
        f"  memory: {_index(bundle.memory) if bundle.memory is not None else 'none'}",
    ]
    files = sorted(bundle.files.items(), key=lambda file: (-file[1], file[0]))
    return [*lines, *_table(("file", "bytes"), [(name, f"{size:,}") for name, size in files])]


def _index(index: IndexReport) -> str:
    effort = f", search effort {index.effort}" if index.effort else ""
    return f"{index.factory} over {index.vectors:,} vectors, recall@10 {index.recall:.4f}{effort}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as what is in them, the first one flush left."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(row[place].rjust(widths[place]) for place in range(1, len(head)))])
        for row in cells
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
