"""`labelspace evaluate`: what a collection serves is measured on a corpus, as a table, figures and a page."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import log_option


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--rows", type=click.IntRange(min=1), help="Judge so many rows of the split only, drawn at random.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file too.")
@click.option("--report", "report", type=click.Path(path_type=Path), help="Write report.html and metrics.json here.")
@click.option("--run", "run", type=click.Path(path_type=Path), help="Show this run's learning curve in the report.")
@click.option(
    "--bootstrap",
    default=1000,
    show_default=True,
    type=click.IntRange(min=0, max=100_000),
    help="Resamples of the confidence intervals; 0: none.",
)
@click.option("--a", "a", default=0.55, show_default=True, help="Propensity constant A.")
@click.option("--b", "b", default=1.5, show_default=True, help="Propensity constant B.")
@log_option()
def evaluate(  # noqa: PLR0913 - one parameter an option
    collection: Path,
    corpus: Path,
    split: str,
    rows: int | None,
    json_file: Path | None,
    report: Path | None,
    run: Path | None,
    bootstrap: int,
    a: float,
    b: float,
    log: str | None,
) -> None:
    """Measure what COLLECTION serves on a split of CORPUS."""
    from index.collection import Collection
    from index.files import write_json
    from training.evaluation import format_evaluation, judge, sum_up
    from training.report import check_report_extra, read_curve, write_report

    if run is not None and report is None:
        raise click.UsageError("--run is shown in a report; name its folder with --report")
    # Before the long work: what cannot be written or read.
    if report is not None:
        check_report_extra()
    curve = read_curve(run) if run is not None else ()
    with Collection(collection, log=log) as opened:
        judgement = judge(opened.snapshot, corpus, split=split, rows=rows)
        evaluation = sum_up(judgement, opened.snapshot, a=a, b=b, bootstrap=bootstrap)
        click.echo(format_evaluation(evaluation))
        if json_file is not None:
            write_json(json_file, evaluation.to_json())
        if report is not None:
            page = write_report(report, evaluation, judgement, opened.snapshot, curve)
            click.echo(f"{page}: open it in a browser")
