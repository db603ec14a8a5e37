"""`labelspace serve`: a collection answers over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import device_options, log_option


@click.command()
@click.argument("collection", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes one that is free."
)
@log_option()
@device_options
def serve(collection: Path, host: str, port: int, log: str | None, device: str, fp16: bool, sharded: bool) -> None:
    """Serve COLLECTION over HTTP until Ctrl-C. Try it in a browser at the address that is printed."""
    from index.device import Device
    from service.serving import serve as run
    from service.settings import Settings

    where = Device.parse(device, fp16=fp16, sharded=sharded)
    run(collection, Settings(host=host, port=port, log=log, device=where))
