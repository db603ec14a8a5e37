"""`labelspace corpus`: get a real corpus, convert one of another format, or see what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def corpus() -> None:
    """Get a real corpus, convert one of another format, or check one of your own."""


@corpus.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--test-share", default=0.2, show_default=True, help="Share of the source packages held out for test.")
@click.option("--characters", default=600, show_default=True, help="Longest description kept.")
def debian(out: Path, test_share: float, characters: int) -> None:
    """Build a corpus from the package descriptions of this Debian or Ubuntu into OUT. Needs no root."""
    from training.debian import build_debian_corpus

    counts = build_debian_corpus(
        out, test_share=test_share, characters=characters, report=lambda line: click.echo(line, err=True)
    )
    click.echo(f"{out}: {counts.train} training and {counts.test} test records, {counts.labels} labels")


@corpus.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", metavar="NAME", help="Do not find out the format: a name from docs/corpus.md.")
@click.option("--text-column", "text_columns", metavar="NAME", multiple=True, help="Of a table; repeat to join more.")
@click.option("--labels-column", metavar="NAME", help="Column of the labels of a table.")
@click.option("--labels-separator", default=";", show_default=True, help="What stands between two labels of a table.")
@click.option("--id-column", metavar="NAME", help="Column of the ids of a table; else rows are numbered.")
@click.option("--labels-file", type=click.Path(path_type=Path), help="The label list, where it is not in SOURCE.")
@click.option("--language", default="en", show_default=True, help="Of a vocabulary that has several.")
@click.option("--encoding", metavar="NAME", help="Of all files; else UTF-8, and Latin-1 for a file that is not.")
@click.option("--quotes/--no-quotes", default=True, help="Whether quotes in a table enclose cells, or are text.")
@click.option("--field-column", "field_columns", metavar="NAME[=FIELD]", multiple=True, help="Becomes a field; repeat.")
@click.option(
    "--list-column",
    "list_columns",
    metavar="NAME[=FIELD] SEPARATOR",
    nargs=2,
    multiple=True,
    help="Becomes a field that is a list; repeat.",
)
@click.option("--missing", metavar="VALUE", multiple=True, help="A field's cell that says nothing, such as ?; repeat.")
@click.option("--user-column", metavar="NAME", help="Of interactions; else one called user, user_id or the like.")
@click.option("--item-column", metavar="NAME", help="Of interactions and --items; else item, item_id or the like.")
@click.option("--time-column", metavar="NAME", help="Of interactions: numbers or dates; else time or timestamp.")
@click.option("--rating-column", metavar="NAME", help="Of interactions, for --min-rating; else rating or score.")
@click.option("--min-rating", type=float, help="Leave out interactions of a lower rating.")
@click.option("--items", type=click.Path(path_type=Path), help="A table of the items of interactions.")
@click.option("--label-text-column", metavar="NAME", help="Of --items; else title, name or the like.")
@click.option("--history", default=100, show_default=True, help="Earlier items, the newest, that a record keeps.")
@click.option("--per-user", type=int, help="Training records kept of a user, the newest; else all.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file too.")
def import_(source: Path, out: Path, json_file: Path | None, **given: Any) -> None:
    """Convert SOURCE, a folder or file in a format of the field, into the corpus folder OUT.

    Formats: Extreme Classification repository (sparse text or npz with raw text, JSON lines, the old combined one),
    Annif (TSV, CSV, folder), any CSV or TSV whose columns you name, and the interactions of users with items.
    """
    from index.files import write_json
    from training.importing.report import format_import
    from training.importing.source import ImportOptions
    from training.importing.writing import import_corpus

    report = import_corpus(source, out, ImportOptions(**given))
    click.echo(format_import(report))
    if json_file is not None:
        write_json(json_file, report.as_dict())


@corpus.command()
@click.argument("folder", metavar="CORPUS", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file too.")
def check(folder: Path, json_file: Path | None) -> None:
    """Read all of CORPUS, stop at the first fault, and show what is in it."""
    from index.files import write_json
    from training.corpus_check import check_corpus, format_report

    report = check_corpus(folder)
    click.echo(format_report(report))
    if json_file is not None:
        write_json(json_file, report.as_dict())
