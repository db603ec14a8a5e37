"""Examples that labels were given since the training: which there are, for which labels, and what they sum to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from immutables import Map, MapMutation
from numpy.typing import NDArray

from index.carried import CarriedExamples
from index.grown_rows import GrownRows
from index.packed import Lists, PackedStrings

# Vectors are summed in steps of this size: sums of a million of them are exact, so that neither their order nor those
# that were there meanwhile leave a trace.
_STEP = 2.0**-32
_SUMMED_TOGETHER = 1 << 13

Pairs = tuple[tuple[int, bool], ...]


@dataclass(frozen=True, slots=True)
class AddedExamples:
    """An immutable view; every change gives a new one, and costs what it changes.

    An example is a text with its fields, however often it is given; it is known by `index.carried.example_key`, and has
    a number by its arrival. vectors: by number, zero where the model reads nothing of an example. numbers: key ->
    number, and keys the other way round, of those that count for or against a label. pairs: number -> label rows, each
    with whether the example is right for it. of_label: label row -> numbers of its examples, each with the same.
    """

    vectors: GrownRows
    numbers: Map[str, int] = field(default_factory=Map)
    keys: Map[int, str] = field(default_factory=Map)
    pairs: Map[int, Pairs] = field(default_factory=Map)
    of_label: Map[int, Map[int, bool]] = field(default_factory=Map)

    @classmethod
    def of(cls, carried: CarriedExamples) -> AddedExamples:
        """Those that a bundle carries, under their numbers."""
        draft = ExampleDraft(cls(GrownRows.of(carried.vectors)))
        for number, key in enumerate(carried.keys):
            draft.carry(number, key, carried.right[number].tolist(), carried.wrong[number].tolist())
        return draft.finish(np.zeros((0, carried.vectors.shape[1]), dtype=np.float32))

    def __len__(self) -> int:
        """How many numbers were ever given out."""
        return len(self.vectors)

    def carried(self) -> CarriedExamples:
        """Those that count, in order of their numbers."""
        order = sorted(self.keys)
        return CarriedExamples(
            PackedStrings.pack(self.keys[number] for number in order),
            self.vectors.values[order],
            *(
                Lists.pack([sorted(row for row, right in self.pairs[one] if right == wanted) for one in order])
                for wanted in (True, False)
            ),
        )

    def sums(self, rows: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Of each of these label rows the sum (n, dim) of the vectors of the examples that are right for it, and how
        many there are (n, 1), those without a vector left out."""
        vectors = self.vectors.values
        sums, counts = np.zeros((len(rows), vectors.shape[1])), np.zeros(len(rows), dtype=np.int64)
        pairs = [
            (place, number)
            for place, row in enumerate(rows)
            for number, right in self.of_label.get(row, {}).items()
            if right
        ]
        for start in range(0, len(pairs), _SUMMED_TOGETHER):
            place, number = np.array(pairs[start : start + _SUMMED_TOGETHER], dtype=np.int64).T
            own = vectors[number]
            first = np.flatnonzero(np.diff(place, prepend=-1))
            # A label may go on in the next part: its sum is added to, exactly.
            sums[place[first]] += np.add.reduceat(np.rint(own.astype(np.float64) / _STEP), first, axis=0)
            counts[place[first]] += np.add.reduceat(np.any(own, axis=1).astype(np.int64), first)
        return sums * _STEP, counts[:, None].astype(np.float32)


class ExampleDraft:
    """The next view while changes are applied to it, one after another.

    changed: label rows for which other examples are right than before. lost: numbers of before that count for no label
    any more. new: number -> key of those that arrived, without those lost again.
    """

    def __init__(self, examples: AddedExamples) -> None:
        self._before = examples
        self._numbers, self._keys = examples.numbers.mutate(), examples.keys.mutate()
        self._pairs, self._of_label = examples.pairs.mutate(), examples.of_label.mutate()
        # Of labels whose examples change, until the end.
        self._own: dict[int, MapMutation[int, bool]] = {}
        self._next = len(examples)
        self.changed: set[int] = set()
        self.lost: list[int] = []
        self.new: dict[int, str] = {}

    def carry(self, number: int, key: str, right: Sequence[int], wrong: Sequence[int]) -> None:
        """An example of before under its number, for which there is a vector; passed over where no label is named."""
        if len(right) or len(wrong):
            self._numbers[key], self._keys[number] = number, key
        for rows, is_right in ((right, True), (wrong, False)):
            for row in rows:
                self.tell(key, row, is_right)

    def tell(self, key: str, row: int, right: bool) -> None:
        """The example is right or wrong for the label of this row, whatever was said of the two before."""
        number: int | None = self._numbers.get(key)
        if number is None:
            number = self._next
            self._next += 1
            self._numbers[key], self._keys[number] = number, key
            self.new[number] = key
        pairs: Pairs = self._pairs.get(number, ())
        was = dict(pairs).get(row)
        if was == right:
            return
        self._pairs[number] = (*(pair for pair in pairs if pair[0] != row), (row, right))
        self._examples_of(row)[number] = right
        if right or was:
            self.changed.add(row)

    def forget(self, key: str, row: int | None) -> None:
        """The example is neither right nor wrong for the label of this row, or with None for any."""
        number: int | None = self._numbers.get(key)
        if number is None:
            return
        for own, _ in self._pairs[number]:
            if row is None or own == row:
                self._part(number, own)
                del self._examples_of(own)[number]

    def clear(self, row: int) -> None:
        """Nothing is an example of this label any more."""
        own = self._own.pop(row, None)
        numbers = self._of_label.get(row, Map()) if own is None else own.finish()
        for number in numbers:
            self._part(number, row)
        if own is not None or numbers:
            self._own[row] = Map[int, bool]().mutate()

    def finish(self, vectors: NDArray[np.float32]) -> AddedExamples:
        """vectors: of the examples in `new`, in their order, (len(new), dim)."""
        arrived = np.zeros((self._next - len(self._before), vectors.shape[1]), dtype=np.float32)
        arrived[np.array(list(self.new), dtype=np.int64) - len(self._before)] = vectors
        for row, own in self._own.items():
            if len(own):
                self._of_label[row] = own.finish()
            else:
                self._of_label.pop(row, None)
        return AddedExamples(
            self._before.vectors.append(arrived),
            self._numbers.finish(),
            self._keys.finish(),
            self._pairs.finish(),
            self._of_label.finish(),
        )

    def _examples_of(self, row: int) -> MapMutation[int, bool]:
        own = self._own.get(row)
        if own is None:
            own = self._own[row] = self._of_label.get(row, Map()).mutate()
        return own

    def _part(self, number: int, row: int) -> None:
        """The example no more knows the label; lost where it knew no other."""
        pairs: Pairs = self._pairs[number]
        if dict(pairs)[row]:
            self.changed.add(row)
        left = tuple(pair for pair in pairs if pair[0] != row)
        if left:
            self._pairs[number] = left
            return
        del self._pairs[number]
        del self._numbers[self._keys.pop(number)]
        if self.new.pop(number, None) is None:
            self.lost.append(number)
