"""What an import works on: rows and labels as a source has them, and what was met on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from index.fields import Fields
from training.importing.inputs import InputFile

if TYPE_CHECKING:
    from training.importing.identifiers import Labels

# What the field's file names call our splits.
PREFIXES = {"train": ("trn", "train"), "dev": ("val", "vld", "dev", "valid"), "test": ("tst", "test")}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a source does not say itself.

    format: a name of training.importing.formats, None to find it out; encoding: None for UTF-8 with Latin-1 where a
    file is not; language: of a vocabulary that has several; labels_file: a label list elsewhere. The columns are those
    of a table; `quotes` says whether quotes have their CSV meaning there. field_columns: NAME or NAME=FIELD, of records
    or of the items of interactions; list_columns: likewise, each with what stands between two values; missing: cells
    of these that say nothing. All from `items` on, the table of the items, is of interactions; history: how many
    earlier items a record keeps; per_user: how many training records of a user are kept, None for all.
    """

    format: str | None = None
    text_columns: tuple[str, ...] = ()
    labels_column: str | None = None
    labels_separator: str = ";"
    id_column: str | None = None
    labels_file: Path | None = None
    language: str = "en"
    encoding: str | None = None
    quotes: bool = True
    field_columns: tuple[str, ...] = ()
    list_columns: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    items: Path | None = None
    user_column: str | None = None
    item_column: str | None = None
    time_column: str | None = None
    rating_column: str | None = None
    min_rating: float | None = None
    label_text_column: str | None = None
    history: int = 100
    per_user: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A record as its source has it; place: file and line for messages; number: its row there, from 0.

    labels, exclude: ids of the import's labels, perhaps repeated; id: None where the source has none.
    """

    place: str
    number: int
    id: str | None
    text: str
    labels: Sequence[str]
    exclude: Sequence[str] = ()
    fields: Fields | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class ListedLabel:
    """A label as the source lists it; id: None where only its place in the list names it."""

    place: str
    id: str | None
    text: str
    fields: Fields | None = None


@dataclass(slots=True)
class Found:
    """How often something was met, and where first."""

    count: int = 0
    first: str = ""

    def at(self, place: str, times: int = 1) -> None:
        """Met `times` more at `place`."""
        if times and not self.count:
            self.first = place
        self.count += times


@dataclass(slots=True)
class Tally:
    """Everything that was changed or left out on the way in; `lines` says what each of them counts."""

    blank_texts: Found = field(default_factory=Found)
    repeated_labels: Found = field(default_factory=Found)
    zero_values: Found = field(default_factory=Found)
    unknown_labels: Found = field(default_factory=Found)
    mirrored: Found = field(default_factory=Found)
    repeated_ids: Found = field(default_factory=Found)
    listed_twice: Found = field(default_factory=Found)
    changed_ids: Found = field(default_factory=Found)
    surrogates: Found = field(default_factory=Found)
    narrow: Found = field(default_factory=Found)
    without_tab: Found = field(default_factory=Found)
    without_subjects: Found = field(default_factory=Found)
    low_ratings: Found = field(default_factory=Found)
    unlisted_items: Found = field(default_factory=Found)
    lone_items: Found = field(default_factory=Found)

    def add(self, other: Tally) -> None:
        """Count what `other` has met, too."""
        for item in fields(self):
            met: Found = getattr(other, item.name)
            getattr(self, item.name).at(met.first, met.count)

    def lines(self) -> list[str]:
        """One line for each that was met."""
        says = (
            ("records with neither text nor fields, left out", self.blank_texts),
            ("labels given twice to one record, kept once", self.repeated_labels),
            ("labels given with the value 0, left out", self.zero_values),
            ("labels that the vocabulary does not have, left out", self.unknown_labels),
            ("labels that a filter file excludes, taken out of their record's labels", self.mirrored),
            ("ids that were there before, made unique by their row number", self.repeated_ids),
            ("labels listed twice, the first kept", self.listed_twice),
            ("ids trimmed, or shortened to 512 bytes", self.changed_ids),
            ("strings with a lone surrogate, replaced by U+FFFD", self.surrogates),
            ("matrices with fewer columns than there are labels, read as if widened", self.narrow),
            ("lines without a tab, left out", self.without_tab),
            ("documents without a subject file, kept without labels", self.without_subjects),
            ("interactions of a lower rating, left out", self.low_ratings),
            ("items that the table of items lacks, added with their id as text", self.unlisted_items),
            ("users of a single interaction, without a record", self.lone_items),
        )
        return [f"{what}: {found.count}, the first at {found.first}" for what, found in says if found.count]


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus that was found in some format.

    splits: name -> a function that reads its rows against the labels; labels: a function that lists the labels, None
    where the records alone name them. numbered: a label is its place in the list, so that none may be left out.
    """

    format: str
    files: tuple[InputFile, ...]
    splits: Mapping[str, Callable[[Labels, Tally], Iterator[Row]]]
    labels: Callable[[], Iterator[ListedLabel]] | None
    numbered: bool = False
    notes: tuple[str, ...] = ()
