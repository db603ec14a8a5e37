"""What the vectors of labels are made of after all changes: texts, fields, examples, what training left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from index.added_examples import AddedExamples
from index.addition import added_vectors
from index.bundle import Bundle
from index.carried import CarriedLabels
from index.label_vector import unit
from index.labels import LiveLabels
from index.reading import encode_known, known_fields


@dataclass(frozen=True, slots=True)
class LabelState:
    """given: label row -> the vector (dim,) that it was put with."""

    bundle: Bundle
    labels: LiveLabels
    examples: AddedExamples
    given: Map[int, NDArray[np.float32]]

    def vectors(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of live labels as they are served, (len(rows), dim); zero where nothing is known of a label.

        A label that nobody changed has its trained one. Of one that was put, and of one with examples from feedback,
        `index.addition` makes it: from its text and fields, what training left of it, and the examples that are right
        for it now; the vector that a label was put with stands for all of these.
        """
        vectors = np.zeros((len(rows), self.bundle.manifest.dim), dtype=np.float32)
        puts = [self._is_put(row) for row in rows]
        made = [place for place, row in enumerate(rows) if puts[place] or self._has_right_examples(row)]
        if made:
            vectors[made] = self._made([rows[place] for place in made])
        kept = np.setdiff1d(np.arange(len(rows)), made)
        if len(kept):
            vectors[kept] = unit(self._trained_sums([rows[place] for place in kept.tolist()]))
        given = [place for place, row in enumerate(rows) if row in self.given]
        if given:
            vectors[given] = unit(np.stack([self.given[rows[place]] for place in given]))
        return vectors

    def unchanged(self, row: int) -> bool:
        """Whether a label of the bundle is searched under the vector that the bundle has of it."""
        return (
            row < len(self.bundle.labels)
            and self._carried_place(row) is None
            and row not in self.labels.edited
            and not self._has_right_examples(row)
        )

    def carried(self) -> CarriedLabels:
        """The live labels that were put or have examples, with what has to be known of them to go on from here."""
        changed = {*self.labels.edited, *self.labels.added, *self.examples.of_label}
        changed.update(self.bundle.carried.labels.rows.tolist())
        rows = sorted(row for row in changed if row not in self.labels.removed)
        put = np.array([self._is_put(row) for row in rows], dtype=np.bool_)
        trained = np.zeros((len(rows), self.bundle.manifest.dim), dtype=np.float32)
        given = np.zeros_like(trained)
        for wanted, parts in ((True, self._trained_parts), (False, self._trained_sums)):
            places = np.flatnonzero(put == wanted)
            if len(places):
                trained[places] = parts([rows[place] for place in places.tolist()])
        for place, row in enumerate(rows):
            if row in self.given:
                given[place] = self.given[row]
        return CarriedLabels(np.array(rows, dtype=np.int64), put, trained, given)

    def _made(self, rows: list[int]) -> NDArray[np.float32]:
        sums, counts = self.examples.sums(rows)
        settings = self.bundle.manifest.addition
        return added_vectors(
            self._texts(rows),
            self._trained_parts(rows),
            sums,
            counts,
            settings,
            label_map=self.bundle.label_map,
        )

    def _texts(self, rows: list[int]) -> NDArray[np.float32]:
        """What the label tower makes of the texts and fields of these rows as they are now."""
        labels = [self.labels[row] for row in rows]
        features = self.bundle.manifest.features
        fields = [known_fields(features, label.fields, "label") for label in labels]
        return encode_known(self.bundle.label_texts, [label.text for label in labels], fields)

    def _trained_parts(self, rows: list[int]) -> NDArray[np.float32]:
        """What training added to the texts and fields of these rows, (len(rows), dim); zero for labels that it did not
        know. Of fields that a bundle does not keep, what they gave is part of it."""
        parts = np.zeros((len(rows), self.bundle.manifest.dim), dtype=np.float32)
        known = [place for place, row in enumerate(rows) if row < len(self.bundle.labels)]
        if not known:
            return parts
        parts[known] = self._trained_sums([rows[place] for place in known])
        whole = [place for place in known if not self._was_put(rows[place])]
        labels = [self.bundle.labels[rows[place]] for place in whole]
        fields = [known_fields(self.bundle.manifest.features, label.fields, "label") for label in labels]
        parts[whole] -= encode_known(self.bundle.label_texts, [label.text for label in labels], fields)
        # All zeros say that training did not know the label; of these it did, whatever it learned.
        nothing = [place for place in whole if not parts[place].any()]
        parts[nothing, 0] = np.finfo(np.float32).tiny
        return parts

    def _trained_sums(self, rows: list[int]) -> NDArray[np.float32]:
        """The label sums of training, (len(rows), dim); of labels that were put before a re-indexing, the part that is
        not of their texts. Rows of the bundle only."""
        sums = np.array(self.bundle.sums[rows], dtype=np.float32)
        for place, row in enumerate(rows):
            carried = self._carried_place(row)
            if carried is not None:
                sums[place] = self.bundle.carried.labels.trained[carried]
        return sums

    def _is_put(self, row: int) -> bool:
        """Whether the label was put, not only trained, now or before a re-indexing."""
        return row >= len(self.bundle.labels) or row in self.labels.edited or self._was_put(row)

    def _was_put(self, row: int) -> bool:
        place = self._carried_place(row)
        return place is not None and bool(self.bundle.carried.labels.put[place])

    def _carried_place(self, row: int) -> int | None:
        rows = self.bundle.carried.labels.rows
        if not len(rows):
            return None
        place = int(np.searchsorted(rows, row))
        return place if place < len(rows) and rows[place] == row else None

    def _has_right_examples(self, row: int) -> bool:
        own = self.examples.of_label.get(row)
        return own is not None and any(own.values())
