"""`labelspace serve`: a collection answers over HTTP."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes one that is free."
)
def serve(collection: Path, host: str, port: int) -> None:
    """Serve COLLECTION over HTTP until Ctrl-C. Try it in a browser at the address that is printed."""
    from service.serving import serve as run
    from service.settings import Settings

    run(collection, Settings(host=host, port=port))
