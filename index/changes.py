"""What can change in a collection: labels put and removed, feedback, examples removed; and how a log has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from index.errors import BundleError
from index.fields import Fields


@dataclass(frozen=True, slots=True)
class PutLabel:
    """A label as it shall be: its text and fields, texts it fits, or a vector of its own (unit length not required).

    What was said of the label before, by puts or by feedback, is gone.
    """

    id: str
    text: str = ""
    examples: tuple[str, ...] = ()
    vector: tuple[float, ...] | None = None
    fields: Fields | None = None


@dataclass(frozen=True, slots=True)
class RemoveLabel:
    """A label that shall be predicted no more."""

    id: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """A text (with fields, or fields alone) and which labels are right for it, and which are wrong."""

    text: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    fields: Fields | None = None


@dataclass(frozen=True, slots=True)
class RemoveExample:
    """A text (with the fields it was given with) that shall be an example of a label no more; of none, without one."""

    text: str
    label: str | None = None
    fields: Fields | None = None


LabelChange = PutLabel | RemoveLabel | Feedback | RemoveExample


@dataclass(frozen=True, slots=True)
class Change:
    """A change with its number in the log; numbers start at 1 and rise."""

    number: int
    what: LabelChange


def labels_of(change: LabelChange) -> tuple[str, ...]:
    """The ids of all labels that a change names."""
    match change:
        case PutLabel(id=label) | RemoveLabel(id=label):
            return (label,)
        case Feedback(right=right, wrong=wrong):
            return (*right, *wrong)
        case RemoveExample(label=label):
            return () if label is None else (label,)


def encode(change: LabelChange) -> tuple[str, str, str]:
    """Kind, label id ("" where there is no one label) and JSON body, as a log stores them."""
    match change:
        case PutLabel(id=label, text=text, examples=examples, vector=vector, fields=fields):
            # Without a word of fields where there are none: as every log was written before labels had them.
            body = {"text": text, "examples": examples, "vector": vector, **_named(fields)}
            return "put", label, _json(body)
        case RemoveLabel(id=label):
            return "remove", label, "{}"
        case Feedback(text=text, right=right, wrong=wrong, fields=fields):
            return "feedback", "", _json({"text": text, "right": right, "wrong": wrong, **_named(fields)})
        case RemoveExample(text=text, label=label, fields=fields):
            return "forget", label or "", _json({"text": text, **_named(fields)})


def decode(place: str, number: int, kind: str, label: str, body: str) -> LabelChange:
    """The change that `encode` wrote. Raises BundleError naming `place` and number for what it did not write."""
    try:
        values = json.loads(body)
        match kind:
            case "put":
                vector = None if values["vector"] is None else tuple(values["vector"])
                return PutLabel(label, values["text"], tuple(values["examples"]), vector, values.get("fields"))
            case "remove":
                return RemoveLabel(label)
            case "feedback":
                right, wrong = tuple(values["right"]), tuple(values["wrong"])
                return Feedback(values["text"], right, wrong, values.get("fields"))
            case "forget":
                return RemoveExample(values["text"], label or None, values.get("fields"))
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{place}: change {number} is damaged; restore the log from a copy") from error
    raise BundleError(f"{place}: change {number} is of unknown kind {kind!r}; a newer version wrote it")


def _named(fields: Fields | None) -> dict[str, Fields]:
    return {"fields": fields} if fields else {}


def _json(body: Mapping[str, object]) -> str:
    return json.dumps(body, ensure_ascii=False)
