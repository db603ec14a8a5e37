"""`labelspace bundles`: see the bundles of a collection, choose the one that is served, check and remove them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import log_option

if TYPE_CHECKING:
    from index.bundles import BundleEntry

_COLLECTION = click.argument("collection", type=click.Path(path_type=Path))


@click.group()
def bundles() -> None:
    """List, promote, roll back, verify and prune bundles; a running service takes over what is promoted."""


@bundles.command("list")
@_COLLECTION
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the metrics measured when each was written.")
def list_(collection: Path, as_json: bool) -> None:
    """Print all bundles; * marks the current one, - the one that a rollback goes to."""
    from index.bundles import list_bundles

    found = list_bundles(collection)
    if as_json:
        click.echo(json.dumps([entry.to_json() for entry in found], ensure_ascii=False, indent=1))
        return
    for entry in found:
        click.echo(_line(entry))


@bundles.command()
@_COLLECTION
@click.argument("bundle")
@click.option("--expected", metavar="BUNDLE", help="Only when this one is current still.")
def promote(collection: Path, bundle: str, expected: str | None) -> None:
    """Make BUNDLE current, once every byte of it is checked."""
    from index.bundles import promote as make_current

    make_current(collection, bundle, expected)
    click.echo(f"{collection}: bundle {bundle} is current")


@bundles.command()
@_COLLECTION
def rollback(collection: Path) -> None:
    """Make current what was so before; changes of labels stay in force."""
    from index.bundles import rollback as go_back

    click.echo(f"{collection}: bundle {go_back(collection)} is current")


@bundles.command()
@_COLLECTION
@click.argument("bundle", required=False)
@log_option()
def verify(collection: Path, bundle: str | None, log: str | None) -> None:
    """Check every byte of BUNDLE, or of all bundles and the log of changes."""
    from index.bundles import verify as check
    from index.errors import BundleError

    checks = check(collection, bundle, log)
    for one in checks:
        unit = "changes" if one.what == "log" else "bytes"
        click.echo(f"{one.what}: {one.fault or f'sound, {one.size:,} {unit}'}")
    damaged = [one.what for one in checks if one.fault]
    if damaged:
        raise BundleError(f"{collection}: {len(damaged)} of {len(checks)} are damaged: {', '.join(damaged)}")


@bundles.command()
@_COLLECTION
@click.option("--keep", default=2, show_default=True, type=click.IntRange(1), help="How many bundles stay.")
def prune(collection: Path, keep: int) -> None:
    """Remove old bundles, never the current one nor, with --keep 2 or more, the one that a rollback goes to."""
    from index.bundles import prune as remove

    gone = remove(collection, keep)
    for name in gone:
        click.echo(f"{name}: removed")
    if not gone:
        click.echo(f"{collection}: nothing to remove")


def _line(entry: BundleEntry) -> str:
    mark = "*" if entry.current else "-" if entry.previous else " "
    if entry.fault:
        return f"{mark} {entry.name}\t{entry.fault}"
    parts = (
        f"{mark} {entry.name}",
        entry.created,
        f"model {entry.model[:8]}",
        f"{entry.labels:,} labels",
        f"{entry.examples:,} examples",
        f"change {entry.change}",
        f"{entry.bytes / 1e6:,.1f} MB",
    )
    return "\t".join(parts)
