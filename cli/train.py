"""`labelspace train`: a corpus becomes a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with [features], [tower], [training].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Such as training.epochs=3; repeatable.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, with the settings it was started with.")
def train(corpus: Path, out: Path, config: Path | None, settings: tuple[str, ...], resume: bool) -> None:
    """Train a dual encoder on CORPUS. Ctrl-C leaves a run that --resume goes on with."""
    from training.config import load_config
    from training.dataset import load_dataset
    from training.trainer import CONFIG, Trainer, check_corpus_unchanged, start_run

    saved = out / CONFIG if resume and config is None and (out / CONFIG).exists() else config
    chosen = load_config(saved, settings)
    dataset = load_dataset(corpus, chosen)
    click.echo(
        f"{len(dataset.queries)} training queries, {len(dataset.dev.bags)} dev queries, {len(dataset.labels)} labels",
        err=True,
    )
    trainer = Trainer(dataset, chosen)
    if resume:
        check_corpus_unchanged(out, dataset)
        trainer.resume(out)
    else:
        start_run(out, corpus, dataset, chosen)
    trainer.train(out)
    click.echo(f"{out}: trained, {trainer.position.epoch} epochs in {trainer.position.seconds:.0f} s")
