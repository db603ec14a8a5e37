"""`labelspace export` and `predict`: a run becomes a bundle, and is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cli.options import device_options, log_option, read_filter


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "collection", required=True, type=click.Path(path_type=Path), help="Collection to write to.")
@click.option("--corpus", type=click.Path(path_type=Path), help="Where the run's corpus is now, if it has moved.")
@click.option("--recall", default=0.99, show_default=True, help="recall@10 that an approximate index has to reach.")
@click.option("--dim", type=click.IntRange(1), help="Keep the leading dimensions only (trained with loss.prefixes).")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the table of a unified tower: half or a quarter of the size, and about as good.",
)
def export(run: Path, collection: Path, corpus: Path | None, recall: float, dim: int | None, precision: str) -> None:
    """Write RUN as the next bundle of a collection and make it current."""
    from training.export import export_run

    bundle = export_run(
        run,
        collection,
        corpus=corpus,
        recall=recall,
        dim=dim,
        precision=precision,
        report=lambda line: click.echo(line, err=True),
    )
    click.echo(f"{collection}: bundle {bundle} is current")


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.argument("file", default="-")
@click.option("-k", "top_k", default=10, show_default=True, type=click.IntRange(1, 1000), help="Labels per text.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Leave out labels less probable than this.")
@click.option(
    "--filter",
    "only",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only labels whose field has this value; repeatable: any of one name's values, all of the names.",
)
@log_option()
@device_options
def predict(  # noqa: PLR0913 - one parameter an option
    collection: Path,
    file: str,
    top_k: int,
    threshold: float | None,
    only: tuple[str, ...],
    log: str | None,
    device: str,
    fp16: bool,
    sharded: bool,
) -> None:
    """Predict labels for FILE (- for standard input): plain lines or JSONL in, JSONL out."""
    from cli.predicting import open_lines, predict_lines
    from index.collection import Collection
    from index.device import Device

    chosen, where = read_filter(only), Device.parse(device, fp16=fp16, sharded=sharded)
    with open_lines(file) as lines, Collection(collection, log=log, device=where) as opened:
        bad = predict_lines(opened.snapshot, lines, sys.stdout, top_k=top_k, threshold=threshold, only=chosen)
    if bad:
        first, reason = bad[0]
        raise click.UsageError(f"{len(bad)} of the lines were not predicted; the first is {file}:{first}: {reason}")
