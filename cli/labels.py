"""`labelspace labels`: see and change the labels of a collection without a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import log_option, read_fields

if TYPE_CHECKING:
    from index.changes import LabelChange

_COLLECTION = click.argument("collection", type=click.Path(path_type=Path))
_LOG = log_option()
_TEXT = click.option("--text", default="", help="The text that it is about.")
_FIELDS = click.option("--field", "fields", multiple=True, metavar="NAME=VALUE", help="A value of a field; repeatable.")


@click.group()
def labels() -> None:
    """See, add, change and remove labels; a running service on the collection follows within a second."""


@labels.command("list")
@_COLLECTION
@_LOG
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1))
@click.option("--after", metavar="ID", help="Begin behind this label.")
def list_(collection: Path, log: str | None, limit: int, after: str | None) -> None:
    """Print ids and texts, tab between them, in row order."""
    from itertools import islice

    from index.collection import Collection

    with Collection(collection, log=log) as opened:
        for _, label in islice(opened.snapshot.labels.after(after), limit):
            click.echo(f"{label.id}\t{label.text}")


@labels.command()
@_COLLECTION
@_LOG
@click.argument("label")
def show(collection: Path, log: str | None, label: str) -> None:
    """Print one label, and its fields."""
    from index.collection import Collection
    from index.errors import UnknownLabelError

    with Collection(collection, log=log) as opened:
        row = opened.snapshot.labels.find(label)
        if row is None:
            raise UnknownLabelError(f"label {label!r}: there is no such label")
        found = opened.snapshot.labels[row]
    fields = f"\t{json.dumps(found.fields, ensure_ascii=False)}" if found.fields else ""
    click.echo(f"{label}\t{found.text}{fields}")


@labels.command()
@_COLLECTION
@_LOG
@click.argument("label")
@click.option("--text", default="", help="What the label is called or means.")
@click.option("--example", "examples", multiple=True, help="A text that the label fits; repeatable.")
@_FIELDS
def add(
    collection: Path, log: str | None, label: str, text: str, examples: tuple[str, ...], fields: tuple[str, ...]
) -> None:
    """Add a label, or replace it whole where the id is taken (the same as `edit`)."""
    from index.changes import PutLabel

    number = _write(collection, log, PutLabel(label, text, examples, fields=read_fields(fields)))
    click.echo(f"label {label}: stored as change {number}")


labels.add_command(add, "edit")


@labels.command()
@_COLLECTION
@_LOG
@click.argument("label")
def remove(collection: Path, log: str | None, label: str) -> None:
    """Remove a label; it is predicted no more."""
    from index.changes import RemoveLabel

    click.echo(f"label {label}: removed by change {_write(collection, log, RemoveLabel(label))}")


@labels.command()
@_COLLECTION
@_LOG
@_TEXT
@_FIELDS
@click.option("--right", multiple=True, metavar="ID", help="A label that fits; repeatable.")
@click.option("--wrong", multiple=True, metavar="ID", help="A label that does not; repeatable.")
def feedback(
    collection: Path,
    log: str | None,
    text: str,
    fields: tuple[str, ...],
    right: tuple[str, ...],
    wrong: tuple[str, ...],
) -> None:
    """Say which labels are right and which are wrong for a text."""
    from index.changes import Feedback

    number = _write(collection, log, Feedback(text, right, wrong, read_fields(fields)))
    click.echo(f"feedback: stored as change {number}")


@labels.command()
@_COLLECTION
@_LOG
@_TEXT
@_FIELDS
@click.option("--label", metavar="ID", help="Of this label only; else of every label.")
def forget(collection: Path, log: str | None, text: str, fields: tuple[str, ...], label: str | None) -> None:
    """Remove a text from the examples of a label, or of all."""
    from index.changes import RemoveExample

    number = _write(collection, log, RemoveExample(text, label, read_fields(fields)))
    click.echo(f"example: removed by change {number}")


def _write(collection: Path, log: str | None, change: LabelChange) -> int:
    """Store one change; returns its number."""
    from index.collection import Collection

    with Collection(collection, log=log) as opened:
        return opened.write([change])[0]
