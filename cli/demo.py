"""`labelspace demo`: the whole way on real data, then serves it."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.option("--folder", default="demo", show_default=True, type=click.Path(path_type=Path))
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def demo(folder: Path, port: int) -> None:
    """Build a corpus, train, export, evaluate, serve, add a label, predict it, remove it. Reuses finished steps.

    With DEMO_EXIT=1 in the environment the service is stopped at the end; without, it goes on in the foreground.
    """
    from cli.demo_steps import prepare, serve_and_show

    prepare(folder)
    serve_and_show(folder, port, stay=os.environ.get("DEMO_EXIT") != "1")
