"""What comes in and what goes out: request bodies are checked models, answers are plain dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from index.snapshot import says_something

MAX_TOP_K = 1000
MAX_PAGE = 1000


def _unicode(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PydanticCustomError("unicode", "must be valid Unicode, without lone surrogates") from error
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


_SCALARS = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
_FIELDS_SCHEMA = {"additionalProperties": {"anyOf": [*_SCALARS, {"type": "array", "items": {"anyOf": _SCALARS[:3]}}]}}
Unicode = Annotated[str, AfterValidator(_unicode)]
Text = Annotated[Unicode, AfterValidator(_not_blank)]
# Which fields there may be is a question of the model: the routes ask index.fields.
FieldValues = Annotated[dict[str, Any], Field(json_schema_extra=_FIELDS_SCHEMA)]


class _Body(BaseModel):
    """Strict; unknown keys are refused, as one fault however many there are."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, values: Any) -> Any:
        if isinstance(values, dict) and not cls.model_fields.keys() >= values.keys():
            unknown = next(key for key in values if key not in cls.model_fields)
            raise PydanticCustomError("unknown_key", "does not have the key {key}", {"key": repr(unknown[:100])})
        return values


class _Said(_Body):
    """A text, fields, or both."""

    fields: FieldValues | None = None
    text: Unicode | None = Field(None, validate_default=True)

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str | None, info: ValidationInfo) -> str | None:
        # Fields that are wrong by themselves are not there, and enough of a fault.
        if "fields" in info.data and not says_something(text or "", info.data["fields"]):
            raise PydanticCustomError("nothing", "must not be blank where no field says anything; give text or fields")
        return text


class PredictInput(_Said):
    """A text, fields, or both, and an id of the caller's own that comes back with its labels."""

    id: Unicode | None = None


class PredictRequest(_Body):
    """Texts to predict labels for. `threshold` leaves out labels less probable than it, `filter` those whose own fields
    have other values: {"lang": "de", "type": ["book", "map"]}. `min_change`: a change that the answer has to know."""

    inputs: Annotated[list[PredictInput], Field(fail_fast=True)] = Field(min_length=1)
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    threshold: FiniteFloat | None = Field(None, ge=0, le=1)
    filter: FieldValues | None = None
    min_change: int | None = Field(None, ge=0)


class LabelBody(_Body):
    """A label as it shall be; at least one of text, fields, examples and vector has to say something."""

    text: Unicode | None = None
    fields: FieldValues | None = None
    examples: Annotated[list[Text], Field(fail_fast=True)] | None = None
    vector: Annotated[list[FiniteFloat], Field(fail_fast=True)] | None = None


class FeedbackBody(_Said):
    """A text, fields, or both, with the labels that are right for it and those that are wrong."""

    right: list[Unicode] = []
    wrong: list[Unicode] = []


class ExampleBody(_Said):
    """What shall be an example no more: of this label, or of any when none is named."""

    label: Unicode | None = None


@dataclass(frozen=True, slots=True)
class RankedLabel:
    """One predicted label; `probability` is the score calibrated on held-out rows."""

    id: str
    text: str
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The labels of one input, best first; `id` is there when the input had one."""

    id: str | None
    labels: list[RankedLabel]


@dataclass(frozen=True, slots=True)
class PredictAnswer:
    """One prediction per input, in order, and the state that they were made from."""

    predictions: list[Prediction]
    bundle: str
    model: str
    change: int


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """A label as it is."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class LabelShown:
    """A label as it is; `fields` are those with which it was put, null for one that comes with the bundle."""

    id: str
    text: str
    fields: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class LabelPage:
    """Labels in row order; `next_cursor` is null at the end. A search may give short pages before the end."""

    labels: list[LabelAnswer]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LabelStored:
    """A label that is on disk and searchable, with the number of its change."""

    id: str
    text: str
    fields: Mapping[str, Any] | None
    examples: tuple[str, ...]
    change: int


@dataclass(frozen=True, slots=True)
class LabelRemoved:
    """A label that is predicted no more, with the number of its change."""

    id: str
    change: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The number of the change, which is on disk and takes part in every prediction from now on."""

    change: int


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """How an index was built, and the share of the exact top 10 that it finds."""

    factory: str
    recall: float
    vectors: int


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A field that the model reads: its kind, and whether of queries (`query`), of labels (`label`) or of `both`."""

    name: str
    kind: str
    tower: str


@dataclass(frozen=True, slots=True)
class UnseenValues:
    """Of all queries since the start: how many rows of the table they `looked_up`, and how many of their values were
    `unseen` in training."""

    looked_up: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit in force; `history_values` is null where the model reads no history."""

    body_bytes: int
    inputs: int
    text_characters: int
    text_characters_read: int
    field_values: int
    history_values: int | None
    top_k: int
    examples: int
    label_id_bytes: int
    page: int


@dataclass(frozen=True, slots=True)
class Info:
    """What is served: `examples` counts the texts remembered beside the labels, `fields` are those that may go with a
    text, `unseen_values` is null where the model does not tell, `versions` names what runs it."""

    bundle: str
    model: str
    created: str
    change: int
    labels: int
    examples: int
    dim: int
    fields: tuple[FieldInfo, ...]
    unseen_values: UnseenValues | None
    index: IndexInfo
    memory: IndexInfo | None
    limits: Limits
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Health:
    """That it lives, or is ready."""

    status: str
