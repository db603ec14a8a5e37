"""What a field of a record is to the model: its kind, and how it becomes features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from index.errors import InputError

KINDS = ("text", "categorical", "multivalent", "numeric", "history")
TOWERS = ("both", "query", "label")
_MOST_PROBES = 8


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field by its name. kind: text; categorical (one value); multivalent (one or several); numeric (its quantile bin
    is the value, and a missing number is one, too); history (a long sequence of values, oldest first).

    probes: rows that each value looks up. tower: which records it is read of: "query", "label", or "both".
    ngrams, pairs: of a text, as FeatureSpec has them for the record's own. bins, edges: of numbers: how many, and the
    ascending numbers that separate them, which are found on train where none are given. length, top: of a history: how
    many of its newest values are read, and how many of these the attention keeps. like: the field whose values these
    are, too, as a history's are items: a value then has the same rows in both.
    """

    name: str
    kind: str = "multivalent"
    probes: int = 1
    tower: str = "both"
    ngrams: tuple[int, ...] = (3,)
    pairs: bool = True
    bins: int = 32
    edges: tuple[float, ...] = ()
    length: int = 10_000
    top: int = 20
    like: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InputError("features.fields: a name is blank; give it one")
        key = f"features.fields.{self.name}"
        _one_of(f"{key}.kind", self.kind, KINDS)
        _one_of(f"{key}.tower", self.tower, TOWERS)
        _between(f"{key}.probes", self.probes, 1, 1 if self.kind == "history" else _MOST_PROBES)
        _between(f"{key}.bins", self.bins, 2, 10_000)
        _between(f"{key}.length", self.length, 1, 10_000)
        _between(f"{key}.top", self.top, 1, 10_000)
        if any(n < 2 or n > 16 for n in self.ngrams):
            raise InputError(f"{key}.ngrams: must be 2 to 16 long, are {list(self.ngrams)}")
        if any(not low < high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise InputError(f"{key}.edges: must be ascending numbers, are {list(self.edges)}")

    def of(self, tower: str) -> bool:
        """Whether the query or the label tower reads it."""
        return self.tower in ("both", tower)

    def to_json(self) -> str | dict[str, Any]:
        """What differs from the defaults; the name alone where nothing does."""
        standard = {item.name: item.default for item in fields(self) if item.default is not MISSING}
        values = {name: value for name, value in asdict(self).items() if standard.get(name) != value}
        return self.name if len(values) == 1 else values


def parse_fields(value: object) -> tuple[FieldSpec, ...]:
    """Fields from their names, their settings by name, or a list of either, in alphabetical order.

    Raises InputError naming what is wrong: a blank name or one twice, a setting that there is not or of another type.
    """
    items: list[object]
    if isinstance(value, Mapping):
        items = [
            {"name": name, **settings} if isinstance(settings, Mapping) else name for name, settings in value.items()
        ]
    elif isinstance(value, Sequence) and not isinstance(value, str):
        items = list(value)
    else:
        raise InputError(f"features.fields: must be names or a table of fields, is {value!r}")
    found = sorted((_parse(item) for item in items), key=lambda spec: spec.name)
    names = [spec.name for spec in found]
    if len(set(names)) < len(names):
        raise InputError(f"features.fields: has a name twice: {names}")
    return tuple(found)


def _parse(item: object) -> FieldSpec:
    if isinstance(item, FieldSpec):
        return item
    if isinstance(item, str):
        return FieldSpec(item)
    name = item.get("name") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or not isinstance(name, str):
        raise InputError(f"features.fields: must be names or tables with a name, one is {item!r}")
    spec = FieldSpec(name)
    settings: dict[str, Any] = {str(key): _checked(spec, str(key), given) for key, given in item.items()}
    return replace(spec, **settings)


def _checked(spec: FieldSpec, key: str, value: object) -> object:
    where = f"features.fields.{spec.name}.{key}"
    old = getattr(spec, key, None)
    if old is None or key == "of":
        raise InputError(
            f"{where}: there is no such setting; there are {', '.join(item.name for item in fields(spec))}"
        )
    if isinstance(old, tuple):
        kinds = (int,) if key == "ngrams" else (int, float)
        if isinstance(value, (list, tuple)) and all(type(one) in kinds for one in value):
            return tuple(one if key == "ngrams" else float(one) for one in value)
        raise InputError(f"{where}: must be a list of numbers, is {value!r}")
    if type(value) is not type(old):
        raise InputError(f"{where}: must be of type {type(old).__name__}, is {value!r}")
    return value


def _one_of(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{key}: must be one of {', '.join(choices)}, is {value!r}")


def _between(key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"{key}: must be {least} to {most}, is {value}")
