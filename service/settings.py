"""Where the service listens and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass

from index.device import CPU, Device


@dataclass(frozen=True, slots=True)
class Settings:
    """Address and limits of one service; every limit is told by /v1/info.

    log: URL of the PostgreSQL database that keeps the changes, None for the file in the collection. device: where the
    label index is searched (index.device). follow_seconds: how often the log is read for changes that other processes
    made. change_seconds: how long a prediction waits for the change that it has to know of.
    stop_seconds: how long requests under way may take to end once the service is asked to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 8 << 20
    max_inputs: int = 1000
    max_text_characters: int = 100_000
    max_examples: int = 1000
    log: str | None = None
    device: Device = CPU
    follow_seconds: float = 0.5
    change_seconds: float = 2.0
    stop_seconds: int = 3
