"""`labelspace corpus`: get a real corpus, or see what is in one."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def corpus() -> None:
    """Get a real corpus, or check one of your own."""


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
