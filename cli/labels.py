"""`labelspace labels`: see and change the labels of a collection without a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from index.fields import Fields

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
    """Print one label, and the fields with which it was put."""
    from index.collection import Collection
    from index.errors import UnknownLabelError

    with Collection(collection) as opened:
        row = opened.snapshot.labels.find(label)
        if row is None:
            raise UnknownLabelError(f"label {label!r}: there is no such label")
        found = opened.snapshot.labels[row]
    fields = f"\t{json.dumps(found.fields, ensure_ascii=False)}" if found.fields else ""
    click.echo(f"{label}\t{found.text}{fields}")


@labels.command()
@_COLLECTION
@click.argument("label")
@click.option("--text", default="", help="What the label is called or means.")
@click.option("--example", "examples", multiple=True, help="A text that the label fits; repeatable.")
@click.option("--field", "fields", multiple=True, metavar="NAME=VALUE", help="A value of a field; repeatable.")
def add(collection: Path, label: str, text: str, examples: tuple[str, ...], fields: tuple[str, ...]) -> None:
    """Add a label, or replace it whole where the id is taken (the same as `edit`)."""
    from index.changes import PutLabel
    from index.collection import Collection

    said = _fields(fields)
    with Collection(collection) as opened:
        (number,) = opened.write([PutLabel(label, text, examples, fields=said)])
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


def _fields(given: tuple[str, ...]) -> Fields | None:
    """The values by name, in the order given: one as it is, several of one name as a list."""
    found: dict[str, list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--field")
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()} or None
