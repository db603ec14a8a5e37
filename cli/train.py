"""`labelspace train`: a corpus becomes a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with sections such as [tower], [training].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Such as training.epochs=3; repeatable.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, with the settings it was started with.")
@click.option("--init", type=click.Path(path_type=Path), help="Start from the weights and settings of this run.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="COLLECTION",
    help="Train only the query tower, against the label vectors that this collection serves.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 16), help="Train so many towers from different seeds; export joins them."
)
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Training ends by then."
)
@click.option("--tensorboard", is_flag=True, help="Write learning curves for TensorBoard into the run.")
def train(  # noqa: PLR0913 - one parameter an option
    corpus: Path,
    out: Path,
    config: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    init: Path | None,
    against: Path | None,
    seeds: int | None,
    time_limit: float | None,
    tensorboard: bool,
) -> None:
    """Train a dual encoder on CORPUS. Ctrl-C leaves a run that --resume goes on with."""
    from training.config import load_config
    from training.dataset import load_dataset
    from training.distributed import is_first
    from training.published import Published
    from training.published_config import published_config
    from training.run import run_lexicon, saved_config
    from training.runs import RunOptions, train_runs
    from training.warm_start import continued_config

    if resume and init is not None:
        raise click.UsageError("--init starts a new run, --resume goes on with one that is there; give one of them")
    if resume and against is not None:
        raise click.UsageError("--against starts a new run; --resume goes on against what the run was started with")
    published = None if against is None else Published.current(against)
    saved = saved_config(out) if resume else saved_config(init) if init is not None else None
    if published is not None:
        chosen = published_config(published, config, settings, init)
        lexicon = published.lexicon
    else:
        chosen = load_config(config or saved, settings) if init is None else continued_config(init, config, settings)
        lexicon = None if saved is None else run_lexicon(saved.parent, chosen)
    dataset = load_dataset(corpus, chosen, lexicon)
    # With what was fitted to the corpus: the bins of numbers, and who has which part of the table.
    chosen = replace(chosen, features=dataset.features)
    if is_first():
        click.echo(
            f"{dataset.examples} training queries, {len(dataset.dev.items)} dev queries, {len(dataset.labels)} labels",
            err=True,
        )
    options = RunOptions(resume, init, seeds, time_limit, tensorboard, published)
    epochs, seconds = train_runs(out, corpus, dataset, chosen, options)
    if is_first():
        click.echo(f"{out}: trained, {epochs} epochs in {seconds:.0f} s")
