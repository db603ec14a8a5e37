"""Options that several verbs have, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from index.fields import Fields
    from index.label_filter import LabelFilter

Command = TypeVar("Command", bound=Callable[..., object])


def log_option() -> Callable[[Command], Command]:
    """--log, for verbs that open a collection."""
    return click.option(
        "--log",
        envvar="LABELSPACE_LOG",
        metavar="URL",
        help="PostgreSQL database that keeps the changes, postgresql://…; else a file in the collection does.",
    )


def device_options(command: Command) -> Command:
    """--device, --fp16 and --sharded, for verbs that search."""
    for option in (
        click.option("--sharded", is_flag=True, help="Every card keeps its share of the labels, not all of them."),
        click.option("--fp16", is_flag=True, help="Cards keep half-precision vectors."),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            metavar="cpu|cuda|cuda:0,1|auto",
            help="Where the label index is searched; auto takes a card where one can be used.",
        ),
    ):
        command = option(command)
    return command


def read_fields(given: tuple[str, ...], option: str = "--field") -> Fields | None:
    """The values by name, in the order given: one as it is, several of one name as a list.

    Raises click.BadParameter naming `option` for what is not NAME=VALUE.
    """
    found: dict[str, list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()} or None


def read_filter(given: tuple[str, ...]) -> LabelFilter | None:
    """The filter that NAME=VALUE pairs say; a value that reads as a number, true or false may be that or the text."""
    from index.label_filter import LabelFilter

    said: dict[str, list[object]] = {}
    for name, values in (read_fields(given, "--filter") or {}).items():
        for value in values if isinstance(values, list) else [values]:
            said.setdefault(name, []).extend({repr(one): one for one in (value, _scalar(str(value)))}.values())
    return LabelFilter.parse(said) if said else None


def _scalar(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text
