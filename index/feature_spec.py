"""What a record's features are: their namespaces, and the bags that their rows stand in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from index.errors import InputError
from index.field_spec import FieldSpec, parse_fields

FEATURES_VERSION = 1
TABLES = ("shared", "split", "quotient", "quotient_split", "exact")
UNSEEN = ("ignore_fields", "ignore", "keep")
CROSSED = ("categorical", "multivalent", "numeric")
# Row numbers are int32.
MOST_ROWS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Namespace:
    """Features that are of one sort: they have a salt, a part of a split table and slots in common.

    name: in reports. salted: what their salt is made of; it must never change. probes: rows of each.
    slotted: whether they stand in bags; a history's stand in a sequence. of_text: whether they are what a text says.
    """

    name: str
    salted: str
    probes: int
    slotted: bool = True
    of_text: bool = False


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a record's features are; part of a model, for a table trained under one spec means nothing under another.

    rows: size of the table they are hashed into. ngrams: lengths of the character n-grams (the spaces around a word
    count as characters). pairs: whether neighbouring words form a feature. characters: how much of a text is read.
    fields: those that are read beside the text, in alphabetical order. crosses: names of fields whose values together
    are a feature, too; it has as many probes as the field of them that has most. probes: rows that each feature of the
    text looks up. pieces: size of a vocabulary of subword pieces, learned from the corpus (0: none). separate: whether
    every field and every kind of text feature has a bag and a reader of its own (Unified Embedding, NeurIPS 2023), or
    all of a record are one bag. table: how features share it (index.placement). unseen: what a bundle makes of features
    whose rows training never touched: "ignore_fields" leaves out the values of fields and crosses, but not what texts
    say, for a new label has to be told from others by its own words; "ignore" leaves out both, "keep" neither.
    parts, lexicon: found on train: where each namespace's part of a split table begins (and the last one ends), and
    the digest of what index.lexicon keeps ("" for nothing).
    """

    rows: int = 1 << 18
    ngrams: tuple[int, ...] = (3,)
    pairs: bool = True
    characters: int = 4000
    seed: int = 0
    version: int = FEATURES_VERSION
    fields: tuple[FieldSpec, ...] = ()
    crosses: tuple[tuple[str, ...], ...] = ()
    probes: int = 1
    pieces: int = 0
    separate: bool = False
    table: str = "shared"
    unseen: str = "ignore_fields"
    parts: tuple[int, ...] = ()
    lexicon: str = ""

    def __post_init__(self) -> None:
        if self.version != FEATURES_VERSION:
            raise InputError(f"features of version {self.version}: this program makes version {FEATURES_VERSION}")
        if self.rows < 1 or self.characters < 1 or any(n < 2 or n > 16 for n in self.ngrams):
            raise InputError(f"features: rows and characters must be positive, n-grams 2 to 16 long; got {self}")
        if self.rows > MOST_ROWS:
            raise InputError(f"features.rows: must be at most {MOST_ROWS}, is {self.rows}")
        if not 1 <= self.probes <= 8 or self.pieces < 0:
            raise InputError(f"features: probes must be 1 to 8, pieces at least 0; are {self.probes}, {self.pieces}")
        if self.table not in TABLES:
            raise InputError(f"features.table: must be one of {', '.join(TABLES)}, is {self.table!r}")
        if self.table.startswith("quotient") and self.rows < 2:
            raise InputError(f"features.rows: a table of quotients and remainders has at least 2, is {self.rows}")
        if self.unseen not in UNSEEN:
            raise InputError(f"features.unseen: must be one of {', '.join(UNSEEN)}, is {self.unseen!r}")
        object.__setattr__(self, "fields", parse_fields(self.fields))
        object.__setattr__(self, "crosses", tuple(sorted({tuple(sorted(cross)) for cross in self.crosses})))
        self._check_likes()
        self._check_crosses()
        self._check_parts()

    def _check_likes(self) -> None:
        valued = {field.name: field for field in self.fields if field.kind in (*CROSSED[:2], "history")}
        for field in self.fields:
            if field.like and (field.name not in valued or field.like not in valued or valued[field.like].like):
                raise InputError(
                    f"features.fields.{field.name}.like: {field.like!r} must be another field of kind categorical, "
                    "multivalent or history, as this one must be, and like no other"
                )

    def _check_crosses(self) -> None:
        kinds = {field.name: field.kind for field in self.fields}
        for cross in self.crosses:
            if len(set(cross)) < max(2, len(cross)) or any(kinds.get(name) not in CROSSED for name in cross):
                raise InputError(
                    f"features.crosses: {list(cross)} must be two or more different fields of kind {', '.join(CROSSED)}"
                )
            if not any(self.crossed(cross, tower) for tower in ("query", "label")):
                raise InputError(f"features.crosses: {list(cross)} are fields of different towers; no record has all")

    def _check_parts(self) -> None:
        count = len(self.namespaces)
        ascending = all(low < high for low, high in pairwise(self.parts))
        if self.parts and not (len(self.parts) == count + 1 and ascending and 0 <= self.parts[0] < self.parts[-1]):
            raise InputError(f"features.parts: must be {count + 1} ascending row numbers, are {list(self.parts)}")
        if self.parts and self.parts[-1] > self.rows:
            raise InputError(f"features.parts: end at row {self.parts[-1]}, but there are {self.rows} rows")

    @property
    def field_names(self) -> tuple[str, ...]:
        """Of the fields, in order."""
        return tuple(field.name for field in self.fields)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Names of all namespaces: those of the text, of each field, of each cross."""
        return tuple(space.name for space in self.layout())

    @property
    def slot_names(self) -> tuple[str, ...]:
        """Names of the bags of a record, in order: a namespace's, or "namespace/probe" where it has several probes."""
        if not self.separate:
            return ("record",)
        return tuple(
            space.name if space.probes == 1 else f"{space.name}/{probe}"
            for space in self.layout()
            if space.slotted
            for probe in range(space.probes)
        )

    @property
    def histories(self) -> tuple[FieldSpec, ...]:
        """The fields that are sequences, in order."""
        return tuple(field for field in self.fields if field.kind == "history")

    def layout(self) -> tuple[Namespace, ...]:
        """All namespaces in order, the same in both towers: that of the slots and of the parts of a split table."""
        names = [*text_namespaces(self.ngrams, pairs=self.pairs), *(("piece", "piece pair") if self.pieces else ())]
        spaces = [Namespace(name, name, self._probes(self.probes), of_text=True) for name in names]
        for field in self.fields:
            probes = self._probes(field.probes)
            if field.kind == "text":
                spaces += [
                    Namespace(f"{field.name}:{name}", f"field:{field.name}:{name}", probes, of_text=True)
                    for name in text_namespaces(field.ngrams, pairs=field.pairs)
                ]
            else:
                history = field.kind == "history"
                salted = f"field:{field.like or field.name}"
                spaces.append(Namespace(f"field:{field.name}", salted, 1 if history else probes, not history))
        most = {field.name: field.probes for field in self.fields}
        for cross in self.crosses:
            name = cross_name(cross)
            spaces.append(Namespace(name, name, self._probes(max(most[one] for one in cross))))
        return tuple(spaces)

    def crossed(self, cross: tuple[str, ...], tower: str) -> bool:
        """Whether the tower reads all fields of the cross."""
        return all(field.of(tower) for field in self.fields if field.name in cross)

    def _probes(self, wanted: int) -> int:
        """A value has one exact row; a quotient and a remainder are two."""
        if self.table == "exact":
            return 1
        return 2 if self.table.startswith("quotient") else wanted

    def to_json(self) -> dict[str, Any]:
        """Without what a spec did not have at first and is at its default."""
        values = {**asdict(self), "fields": [field.to_json() for field in self.fields]}
        first = ("rows", "ngrams", "pairs", "characters", "seed", "version")
        standard = {item.name: item.default for item in fields(self)}
        return {name: value for name, value in values.items() if name in first or getattr(self, name) != standard[name]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FeatureSpec:
        tuples: dict[str, Any] = {name: tuple(values[name]) for name in ("ngrams", "parts") if name in values}
        crosses = tuple(tuple(cross) for cross in values.get("crosses", ()))
        return cls(**{**values, **tuples, "crosses": crosses, "fields": parse_fields(values.get("fields", ()))})


def text_namespaces(ngrams: tuple[int, ...], *, pairs: bool) -> tuple[str, ...]:
    """Of a text's features, in the order that index.text_features makes them in."""
    return ("word", *(("pair",) if pairs else ()), *(f"ngram{n}" for n in ngrams))


def cross_name(cross: tuple[str, ...]) -> str:
    return f"cross:{'*'.join(cross)}"
