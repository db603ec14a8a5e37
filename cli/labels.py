"""`labelspace labels`: see and change the labels of a collection without a service."""

from __future__ import annotations

from pathlib import Path

import click

_COLLECTION = click.argument("collection", type=click.Path(path_type=Path))


@click.group()
def labels() -> None:
    """See, add, change and remove labels; a running service on the collection follows within a second."""


@labels.command("list")
@_COLLECTION
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1))
@click.option("--after", metavar="ID", help="Begin behind this label.")
def list_(collection: Path, limit: int, after: str | None) -> None:
    """Print ids and texts, tab between them, in row order."""
    from itertools import islice

    from index.collection import Collection

    with Collection(collection) as opened:
        for _, label in islice(opened.snapshot.labels.after(after), limit):
            click.echo(f"{label.id}\t{label.text}")


@labels.command()
@_COLLECTION
@click.argument("label")
def show(collection: Path, label: str) -> None:
    """Print one label."""
    from index.collection import Collection
    from index.errors import UnknownLabelError

    with Collection(collection) as opened:
        row = opened.snapshot.labels.find(label)
        if row is None:
            raise UnknownLabelError(f"label {label!r}: there is no such label")
        click.echo(f"{label}\t{opened.snapshot.labels[row].text}")


@labels.command()
@_COLLECTION
@click.argument("label")
@click.option("--text", default="", help="What the label is called or means.")
@click.option("--example", "examples", multiple=True, help="A text that the label fits; repeatable.")
def add(collection: Path, label: str, text: str, examples: tuple[str, ...]) -> None:
    """Add a label, or replace it where the id is taken (the same as `edit`)."""
    from index.changes import PutLabel
    from index.collection import Collection

    with Collection(collection) as opened:
        (number,) = opened.write([PutLabel(label, text, examples)])
    click.echo(f"label {label}: stored as change {number}")


labels.add_command(add, "edit")


@labels.command()
@_COLLECTION
@click.argument("label")
def remove(collection: Path, label: str) -> None:
    """Remove a label; it is predicted no more."""
    from index.changes import RemoveLabel
    from index.collection import Collection

    with Collection(collection) as opened:
        (number,) = opened.write([RemoveLabel(label)])
    click.echo(f"label {label}: removed by change {number}")
