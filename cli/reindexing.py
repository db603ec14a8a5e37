"""`labelspace reindex`: the changes of a collection become part of its next bundle, while it is served."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import log_option

if TYPE_CHECKING:
    from index.dev_queries import DevQuery
    from index.reindex import Exported, Settings

# A service on the same machine comes first.
_NICENESS = 10


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="Start from this run's model instead of the current one.")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path),
    help="Where the run's corpus is now; without --run, a corpus whose dev split is tuned and judged on.",
)
@click.option("--index", "index", default="auto", show_default=True, metavar="SPEC|auto", help="Of the label vectors.")
@click.option("--recall", default=0.99, show_default=True, type=click.FloatRange(0, 1), help="recall@10 to reach.")
@click.option(
    "--upto", type=click.IntRange(0), help="The newest change that goes in; the newest there is if not given."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    help="That encode, and threads that build; one for each core if not given.",
)
@click.option("--queries", type=click.Path(path_type=Path), help="JSONL file of queries to tune and to judge on.")
@click.option(
    "--gate",
    metavar="NAME=NUMBER,…|none",
    help="What has to be reached: overlap, recall at least; P@1, R@10, nDCG@10 new minus old, in points. "
    "[default: overlap=0.9 for the same model, P@1=-1, recall as in --recall]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and end.")
@click.option("--promote/--no-promote", default=True, help="Make the new bundle current if it passes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the comparison to this file too.")
@log_option()
def reindex(  # noqa: PLR0913 - one parameter an option
    collection: Path,
    run: Path | None,
    corpus: Path | None,
    index: str,
    recall: float,
    upto: int | None,
    processes: int | None,
    queries: Path | None,
    gate: str | None,
    dry_run: bool,
    promote: bool,
    json_file: Path | None,
    log: str | None,
) -> None:
    """Write the next bundle of COLLECTION with the changes of its log in it, compare it, and make it current.

    Started again after it was killed, it goes on where it was. What is logged meanwhile is not lost.
    """
    import faiss

    from index.files import write_json
    from index.reindex import Settings
    from index.reindex import reindex as start

    if dry_run:
        _say_plan(collection, run, upto, index, log)
        return
    if processes is not None:
        faiss.omp_set_num_threads(processes)
    cores = processes or os.cpu_count() or 1
    settings = Settings(
        index, recall, upto, cores, gate, _queries(collection, queries, None if run else corpus), promote
    )
    os.nice(_NICENESS)
    source = None if run is None else _exported(run, collection, corpus, settings)
    outcome = start(collection, settings, log=log, source=source, report=_report, meter=_meter)
    if json_file is not None and outcome.comparison is not None:
        write_json(json_file, {"bundle": outcome.bundle, "promoted": outcome.promoted, **outcome.comparison.to_json()})
    if outcome.promoted:
        click.echo(f"{collection}: bundle {outcome.bundle} with the changes up to {outcome.change} is current")
    elif outcome.failures:
        by_hand = f"`labelspace bundles promote {collection} {outcome.bundle}` makes it current all the same"
        raise click.ClickException(
            f"bundle {outcome.bundle} was not made current: {'; '.join(outcome.failures)}; {by_hand}"
        )
    else:
        click.echo(
            f"{collection}: bundle {outcome.bundle} with the changes up to {outcome.change} is there, not current"
        )


def _say_plan(collection: Path, run: Path | None, upto: int | None, index: str, log: str | None) -> None:
    from index.reindex_plan import plan_reindex

    for line in plan_reindex(collection, upto=upto, index=index, log=log).lines():
        click.echo(line)
    if run is not None:
        click.echo(f"{run} would be exported first, and all changes from the first on be applied to its bundle")


def _queries(collection: Path, file: Path | None, corpus: Path | None) -> tuple[DevQuery, ...] | None:
    """Those of the file, or of the corpus' dev split; None for those in the bundle."""
    from index.dev_queries import read_dev

    if file is not None and corpus is not None:
        raise click.UsageError("--queries and --corpus both say what to judge on; give one of them")
    if file is not None:
        return tuple(read_dev(file))
    if corpus is None:
        return None
    from index.bundle import read_manifest
    from index.bundles import current_bundle
    from training.dev_split import dev_split

    return tuple(dev_split(corpus, read_manifest(current_bundle(collection)).features.fields))


def _exported(run: Path, collection: Path, corpus: Path | None, settings: Settings) -> Exported:
    from index.reindex import Exported
    from training.export import ExportJob, export_run, run_state

    def export(key: str, work: Path) -> str:
        job = ExportJob(key, work, settings.processes)
        return export_run(
            run, collection, corpus=corpus, recall=settings.recall, job=job, report=_report, promote=False
        )

    return Exported(run_state(run), export)


def _report(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _meter(what: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    from training.progress import Progress

    with Progress(what, total, "texts", done=done) as progress:
        yield progress.advance
