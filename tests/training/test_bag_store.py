"""The bag store: a second run opens what the first has made, and what is another corpus or spec is made anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.bags import Bags, stack_bags
from index.errors import InputError
from index.feature_spec import FeatureSpec
from index.features import Featurizer
from index.field_spec import FieldSpec
from index.fields import Fields
from index.lexicon import Lexicon
from training import bag_store
from training.bag_store import prepare_bags, stored_bags

TEXTS = ["", "apple pie", "apple pie", " ", "日本 料理 größe", "😀", "\ud800 pie", "a" * 5000, "the the the"]
SPEC = FeatureSpec(rows=1 << 12)
FIELDS = (FieldSpec("seen", "history"), FieldSpec("type"), FieldSpec("watched", "history"))
SAID: list[Fields | None] = [{"type": ["a", "b"], "seen": ["x", "y", "x"]}, None, {"seen": []}, {"type": 3},
                             {"watched": ["z"] * 50}, None, None, {"type": "größe"}, {"watched": [1.5, 2]}]  # fmt: skip


class Counted(Featurizer):
    """A featurizer that counts the texts that it was given."""

    texts = 0

    def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
        self.texts += len(texts)
        return super().__call__(texts, fields)


def arrays(bags: Bags) -> list[NDArray[np.int64] | NDArray[np.int32] | NDArray[np.float32]]:
    found: list[NDArray[np.int64] | NDArray[np.int32] | NDArray[np.float32]] = [bags.offsets, bags.rows, bags.weights]
    for sequence in bags.sequences:
        found += [sequence.offsets, sequence.rows]
    return found if bags.unseen is None else [*found, bags.unseen]


def same(one: Bags, other: Bags) -> bool:
    pairs = list(zip(arrays(one), arrays(other), strict=True))
    return one.slots == other.slots and all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def exact() -> tuple[FeatureSpec, Lexicon]:
    _, hashes = Featurizer(replace(SPEC, fields=FIELDS)).hashes(TEXTS[:5], SAID[:5])
    lexicon = Lexicon(None, np.unique(hashes))
    assert lexicon.vocabulary is not None
    spec = replace(SPEC, fields=FIELDS, table="exact", separate=True, rows=len(lexicon.vocabulary))
    return replace(spec, lexicon=lexicon.digest), lexicon


FEATURIZERS: dict[str, Callable[[], Counted]] = {
    "plain": lambda: Counted(replace(SPEC, fields=FIELDS[1:2])),
    "histories": lambda: Counted(replace(SPEC, fields=FIELDS)),
    "separate": lambda: Counted(replace(SPEC, fields=FIELDS, separate=True, probes=2)),
    "exact": lambda: Counted(exact()[0], "query", exact()[1]),
}


@pytest.mark.parametrize("kind", FEATURIZERS)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_second_time_the_same_bags_are_opened_by_memory_map(
    kind: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bag_store, "_BLOCK", 2)
    featurizer, names = FEATURIZERS[kind](), {"type"} if kind == "plain" else {"type", "seen", "watched"}
    said = [one and {name: value for name, value in one.items() if name in names} for one in SAID]
    expected = featurizer(TEXTS, said)
    featurizer.texts = 0
    made = stored_bags(tmp_path, featurizer, TEXTS, said, threads=threads)
    opened = stored_bags(tmp_path, featurizer, list(TEXTS), [one and dict(one) for one in said])
    assert featurizer.texts == len(TEXTS)
    assert same(made, expected) and same(opened, expected)
    assert all(isinstance(array.base, np.memmap) for array in arrays(opened) if len(array))
    chosen = np.array([8, 0, 4])
    assert same(opened.take(chosen), expected.take(chosen))
    assert same(stack_bags(opened, opened), stack_bags(expected, expected))
    assert (opened.unseen is not None) == (kind == "exact")


def test_another_corpus_spec_or_tower_is_made_anew(tmp_path: Path) -> None:
    query = replace(FIELDS[1], tower="query")
    cases: list[tuple[Featurizer, list[str], list[Fields | None] | None]] = [
        (Featurizer(SPEC), ["ab", "c"], None), (Featurizer(SPEC), ["a", "bc"], None), (Featurizer(SPEC), ["ab"], None),
        (Featurizer(SPEC, "label"), ["ab", "c"], None), (Featurizer(replace(SPEC, seed=1)), ["ab", "c"], None),
        (Featurizer(SPEC), [], None), (Featurizer(SPEC), ["", ""], None),
        (Featurizer(replace(SPEC, fields=(query,))), ["ab", "c"], [{"type": "x"}, None]),
        (Featurizer(replace(SPEC, fields=(query,))), ["ab", "c"], [None, {"type": "x"}]),
        (Featurizer(replace(SPEC, fields=FIELDS[:1])), ["ab", "c"], [None, {"seen": ["x", "y"]}]),
        (Featurizer(replace(SPEC, fields=FIELDS[:1])), ["ab", "c"], [None, {"seen": ["y", "x"]}]),
    ]  # fmt: skip
    for _ in range(2):
        for featurizer, texts, said in cases:
            assert same(stored_bags(tmp_path, featurizer, texts, said), featurizer(texts, said))
    assert len(list(tmp_path.iterdir())) == len(cases)


@pytest.mark.parametrize("damage", ["cut", "missing", "longer", "no sizes", "no json", "other texts", "a file"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    featurizer = Counted(SPEC)
    stored_bags(tmp_path, featurizer, TEXTS)
    place = next(tmp_path.iterdir())
    rows, about = place / "rows", place / "about.json"
    if damage == "cut":
        rows.write_bytes(rows.read_bytes()[:-4])
    elif damage == "missing":
        rows.unlink()
    elif damage == "longer":
        rows.write_bytes(rows.read_bytes() + b"\0")
    elif damage == "no sizes":
        about.write_text('{"slots": 1}')
    elif damage == "no json":
        about.write_text("[")
    elif damage == "other texts":
        (place / "offsets").write_bytes((place / "offsets").read_bytes()[:-8])
        about.write_text(about.read_text().replace(f'"offsets": {len(TEXTS) + 1}', f'"offsets": {len(TEXTS)}'))
    else:
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        place.write_text("not a folder")
    for _ in range(2):
        assert same(stored_bags(tmp_path, featurizer, TEXTS), Featurizer(SPEC)(TEXTS))
    # A file of that name is not ours to remove: the bags are made each time.
    assert featurizer.texts == (3 if damage == "a file" else 2) * len(TEXTS)


def test_a_store_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("a file, not a folder")
    assert same(stored_bags(store, Featurizer(SPEC), TEXTS), Featurizer(SPEC)(TEXTS))


def test_fields_that_are_wrong_are_said_and_nothing_is_kept(tmp_path: Path) -> None:
    featurizer = Counted(replace(SPEC, fields=FIELDS[1:2]))
    with pytest.raises(InputError, match="'type' must be a string"):
        stored_bags(tmp_path, featurizer, ["a", "b"], [None, {"type": {"no": "value"}}])
    assert featurizer.texts == 2 and not list(tmp_path.iterdir())


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = [[f"text {number}"] * 100 for number in range(5)]
    featurizer = Counted(SPEC)
    for age, corpus in enumerate(corpora[:3]):
        before = set(tmp_path.iterdir())
        stored_bags(tmp_path, featurizer, corpus)
        (place,) = set(tmp_path.iterdir()) - before
        os.utime(place, (1000 + age, 1000 + age))
    size = sum(file.stat().st_size for file in place.iterdir())
    mapped = stored_bags(tmp_path, featurizer, corpora[0])  # used again: now the youngest
    monkeypatch.setattr(bag_store, "MOST_BYTES", int(3.5 * size))
    stored_bags(tmp_path, featurizer, corpora[3])
    featurizer.texts = 0
    for corpus in (corpora[0], corpora[3]):
        stored_bags(tmp_path, featurizer, corpus)
    assert featurizer.texts == 0 and len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(bag_store, "MOST_BYTES", 1)
    stored_bags(tmp_path, featurizer, corpora[1])
    assert len(list(tmp_path.iterdir())) == 3  # only the third was old
    monkeypatch.setattr(bag_store, "_RECENT_SECONDS", -1.0)
    stored_bags(tmp_path, featurizer, corpora[4])
    assert len(list(tmp_path.iterdir())) == 1
    assert same(mapped, Featurizer(SPEC)(corpora[0]))  # still mapped


def test_another_process_that_was_first_is_not_in_the_way(tmp_path: Path) -> None:
    class Raced(Counted):
        def __call__(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Bags:
            if not self.texts:
                stored_bags(tmp_path, Featurizer(SPEC), texts)
            return super().__call__(texts, fields)

    raced = Raced(SPEC)
    assert same(stored_bags(tmp_path, raced, TEXTS), Featurizer(SPEC)(TEXTS))
    assert raced.texts == len(TEXTS) and len(list(tmp_path.iterdir())) == 1


def test_only_large_corpora_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag_store, "LEAST_TEXTS", 5)
    prepare = prepare_bags(Featurizer(SPEC), threads=2, store=tmp_path / "store")
    assert same(prepare(TEXTS[:4], None), Featurizer(SPEC)(TEXTS[:4]))
    assert not (tmp_path / "store").exists()
    assert same(prepare(TEXTS[:5], None), Featurizer(SPEC)(TEXTS[:5]))
    assert len(list((tmp_path / "store").iterdir())) == 1
    assert same(prepare_bags(Featurizer(SPEC))(TEXTS, None), Featurizer(SPEC)(TEXTS))
