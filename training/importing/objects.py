"""JSON lines as the field publishes them: an object a line with a title, perhaps a content, and a uid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from index.errors import InputError
from training.importing.inputs import InputFile, read_lines


def read_objects(file: InputFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, object), streamed. Raises InputError naming file and line for what is no JSON object.

    Blank lines are taken at the end only, as anywhere else they would leave open which row a line is.
    """
    blank = ""
    for line, text in read_lines(file):
        place = f"{file.path}:{line}"
        if not text.strip():
            blank = blank or place
            continue
        if blank:
            raise InputError(f"{blank}: is blank; write one JSON object a line")
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is not valid JSON ({error.msg}, character {error.pos + 1})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: is JSON that cannot be taken ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"{place}: is no JSON object; write one a line, not one list of all")
        yield place, value


def text_of(value: dict[str, Any], place: str) -> str:
    """Title and content with a space between, either alone where the other is missing or blank.

    Raises InputError when neither key is there or one is no string.
    """
    if "title" not in value and "content" not in value:
        raise InputError(f"{place}: has neither title nor content; give it a text")
    parts = [value.get("title"), value.get("content")]
    for part in parts:
        if part is not None and not isinstance(part, str):
            raise InputError(f"{place}: title and content must be strings")
    return " ".join(part for part in parts if part and part.strip())


def uid_of(value: dict[str, Any], place: str) -> str | None:
    """The uid, None where there is none. Raises InputError when it is neither a string nor a whole number."""
    uid = value.get("uid")
    if uid is None or isinstance(uid, str):
        return uid
    if isinstance(uid, bool) or not isinstance(uid, int):
        raise InputError(f"{place}: uid must be a string or a whole number")
    return str(uid)
