"""`labelspace plan`: what so many labels will take, before anything runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from index.plan import IndexPlan, Plan

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@click.command()
@click.option("--labels", required=True, type=click.IntRange(1), help="How many labels.")
@click.option("--dim", required=True, type=click.IntRange(1), help="Dimensions of their vectors.")
@click.option("--examples", default=0, show_default=True, type=click.IntRange(0), help="How many examples to remember.")
@click.option("--memory", metavar="SIZE", help="Most that both indexes may take: bytes, or 500MB, 4GB, 4GiB.")
@click.option("--index", "spec", default="auto", show_default=True, help="auto, or a FAISS factory string.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Threads that build.")
def plan(labels: int, dim: int, examples: int, memory: str | None, spec: str, threads: int) -> None:
    """Show which index so many labels get, and what memory, disk and time it takes. A small index of the same kind is
    built first, for some seconds, to see how fast this machine is."""
    from index.plan import calibrated
    from index.plan import plan as planned

    budget = None if memory is None else parse_size(memory)
    found = planned(labels, dim, calibrated, spec=spec, memory_budget=budget, threads=threads, examples=examples)
    click.echo("\n".join(format_plan(found)))


def parse_size(text: str) -> int:
    """Bytes: a whole or decimal number and a unit (1 GB is 10^9 bytes, 1 GiB is 2^30). Raises InputError naming it."""
    from index.errors import InputError

    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip(), re.ASCII)
    size = 0 if match is None or match[2].lower() not in _UNITS else int(float(match[1]) * _UNITS[match[2].lower()])
    if size < 1:
        raise InputError(
            f"--memory {text!r}: is no size; write bytes, or a number with kB, MB, GB, TB, KiB, MiB or GiB"
        )
    return size


def format_plan(plan: Plan) -> list[str]:
    """The figures for a terminal."""
    lines = [f"{plan.labels.vectors:,} labels of {plan.dim} dimensions"]
    lines += _lines("index", plan.labels)
    if plan.examples is not None:
        lines += [f"{plan.examples.vectors:,} examples", *_lines("memory", plan.examples)]
    peak = max(part.building for part in (plan.labels, plan.examples) if part is not None)
    most = "up to " if any(part.at_most for part in (plan.labels, plan.examples) if part is not None) else ""
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    return [
        *lines,
        "together",
        f"  memory      {_size(plan.memory)}",
        f"  disk        {_size(plan.disk)}, label vectors included",
        f"  build time  {most}{_duration(plan.seconds)} on {threads}, with {_size(peak)} of memory",
    ]


def _lines(what: str, part: IndexPlan) -> list[str]:
    each = f"{part.bytes / part.vectors:.0f} bytes each"
    return [f"  {what:<10}  {part.factory}, {_size(part.bytes)}, {each}"]


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count} bytes"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
