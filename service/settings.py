"""Where the service listens and how much it takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Address and limits of one service; every limit is told by /v1/info.

    follow_seconds: how often the log is read for changes that other processes made.
    stop_seconds: how long requests under way may take to end once the service is asked to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 8 << 20
    max_inputs: int = 1000
    max_text_characters: int = 100_000
    max_examples: int = 1000
    follow_seconds: float = 0.5
    stop_seconds: int = 3
