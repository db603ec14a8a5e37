"""A corpus made ready: features fitted to train alone, each tower with its own fields, the same a second time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.errors import InputError
from index.features import Featurizer
from index.lexicon import Lexicon
from tests_support import write_lines
from trainer_support import SHORT
from training import bag_store
from training.config import Config, load_config
from training.corpus import hold_out, load_corpus
from training.dataset import Dataset, load_dataset
from training.feature_fitting import of_tower
from training.trainer import Trainer
from transformer_support import write_tokenizer

FIELDS = (
    'features.fields={age={kind="numeric", bins=4}, asked={tower="query"}, kind={tower="label"}, '
    'seen={kind="history", tower="query"}}'
)

WITHOUT_HISTORY = 'features.fields={age={kind="numeric", bins=4}, asked={tower="query"}, kind={tower="label"}}'


def write(folder: Path, *, dev: bool = True) -> Path:
    """Four labels, of which the third has no text; dev has words, ages and values that train does not have."""
    folder.mkdir()
    names = ["apple pie", "bicycle repair", "", "größe übung"]
    labels = [{"id": f"l{row}", "text": text, "fields": {"kind": f"k{row % 2}"}} for row, text in enumerate(names)]
    write_lines(folder / "labels.jsonl", [dict(label) for label in labels])
    for split, count in (("train", 40), *((("dev", 6),) if dev else ())):
        strange = 1000 if split == "dev" else 0
        rows: list[dict[str, object]] = [
            {
                "id": f"{split}{row}",
                "text": f"about {names[row % 4] or 'nothing'} {split}{row % 10}",
                "labels": [f"l{row % 4}"],
                "fields": {"age": row % 8 + strange, "asked": [f"{split}{row % 3}"], "seen": [1, 2, row % 2 + strange],
                           "kind": "of no use to a query", "odd": {"not": "read"}},
            }
            for row in range(count)
        ]  # fmt: skip
        write_lines(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dataset") / "corpus")


def config_of(*settings: str) -> Config:
    return load_config(None, [*SHORT, FIELDS, *settings])


def same_items(one: Dataset, other: Dataset) -> bool:
    pairs = ((one.queries, other.queries), (one.labels, other.labels), (one.dev.items, other.dev.items))
    return all(
        np.array_equal(a.rows, b.rows) and np.array_equal(a.weights, b.weights)  # type: ignore[attr-defined]
        for a, b in pairs
    )


def test_each_tower_has_the_features_of_its_own_fields(corpus: Path) -> None:
    config = config_of()
    dataset = load_dataset(corpus, config)
    # 40 ages of 0 to 7, five of each: four bins of two.
    edges = {field.name: field.edges for field in dataset.features.fields}
    assert edges == {"age": (1.5, 3.5, 5.5), "asked": (), "kind": (), "seen": ()}
    assert dataset.lexicon is None and dataset.features == replace(config.features, fields=dataset.features.fields)
    loaded = load_corpus(corpus, ["train", "dev"], config.features.fields)
    train = loaded.splits["train"]
    said = [{name: value for name, value in (one or {}).items() if name != "kind"} for one in train.fields or ()]
    expected = Featurizer(dataset.features)(train.texts, said)
    assert np.array_equal(dataset.queries.rows, expected.rows)  # type: ignore[attr-defined]
    assert np.array_equal(dataset.queries.sequences[0].rows, expected.sequences[0].rows)  # type: ignore[attr-defined]
    labels = Featurizer(dataset.features, "label")(loaded.label_texts, loaded.label_fields)
    assert np.array_equal(dataset.labels.rows, labels.rows)  # type: ignore[attr-defined]
    assert dataset.label_fields == [{"kind": f"k{row % 2}"} for row in range(4)]


def test_fields_that_no_tower_reads_are_for_the_bundle_and_no_part_of_the_run(corpus: Path, tmp_path: Path) -> None:
    config, own = config_of(), Path(shutil.copytree(corpus, tmp_path / "own"))
    dataset = load_dataset(own, config)
    assert dataset.kept_fields is not None
    assert list(dataset.kept_fields) == [f'{{"kind":"k{row % 2}"}}' for row in range(4)]
    path = own / "labels.jsonl"
    labels = [json.loads(line) for line in path.read_text().splitlines()]
    for row, label in enumerate(labels):
        label["fields"]["price"] = row
    path.write_text("".join(json.dumps(label) + "\n" for label in labels))
    again = load_dataset(own, config)
    assert again.fingerprint == dataset.fingerprint and same_items(again, dataset)
    assert again.label_fields == dataset.label_fields
    assert again.kept_fields is not None and again.kept_fields[3] == '{"kind":"k1","price":3}'


@pytest.mark.parametrize("table", ["split", "quotient_split", "exact"])
def test_what_is_fitted_once_is_fitted_for_good(corpus: Path, table: str) -> None:
    config = config_of(f"features.table={table}", "features.pieces=30", "features.separate=true")
    dataset = load_dataset(corpus, config)
    assert dataset.lexicon is not None and dataset.features.lexicon == dataset.lexicon.digest
    fitted = replace(config, features=dataset.features)
    again = load_dataset(corpus, fitted, dataset.lexicon)
    assert again.features == dataset.features and again.lexicon is dataset.lexicon
    assert same_items(again, dataset) and again.fingerprint == dataset.fingerprint
    with pytest.raises(InputError, match=r"features\.lexicon"):
        load_dataset(corpus, fitted)


def test_only_train_is_learned_from(corpus: Path, tmp_path: Path) -> None:
    dataset = load_dataset(corpus, config_of("features.table=exact"))
    unseen = dataset.dev.items.unseen  # type: ignore[attr-defined]
    # "dev0", its pair, its trigrams and the values of both fields; that of ages is the last bin.
    assert (unseen >= 1 + 1 + 3 + 1 + 1).all()
    assert not dataset.queries.unseen.any() and not dataset.labels.unseen.any()  # type: ignore[attr-defined]
    # The part that is held out of train is not train.
    folder = write(tmp_path / "corpus", dev=False)
    config = config_of("features.table=exact", "training.dev_share=0.2")
    held = load_dataset(folder, config)
    train = load_corpus(folder, ["train"], config.features.fields).splits["train"]
    kept, out = hold_out(train, 0.2, 0)
    assert held.examples == len(kept) and len(held.dev.items) == len(out)
    fields = of_tower(train.fields, held.features.fields, "query")
    assert fields is not None and isinstance(held.lexicon, Lexicon)
    _, hashes = Featurizer(held.features, "query", held.lexicon).hashes(
        [train.texts[row] for row in kept], [fields[row] for row in kept]
    )
    _, of_labels = Featurizer(held.features, "label", held.lexicon).hashes(held.label_texts, held.label_fields)
    assert np.array_equal(held.lexicon.vocabulary, np.unique([*hashes, *of_labels]))  # type: ignore[arg-type]


def test_label_texts_that_are_queries_have_no_fields(corpus: Path) -> None:
    dataset = load_dataset(corpus, config_of("label.text_queries=true"))
    assert dataset.examples == 40 and len(dataset.queries) == 43
    last = dataset.queries.take(np.arange(40, 43))
    texts = [text for text in dataset.label_texts if text]
    expected = Featurizer(dataset.features)(texts, [None] * 3)
    assert np.array_equal(last.rows, expected.rows)  # type: ignore[attr-defined]
    assert dataset.relevance[40:].toarray().argmax(axis=1).tolist() == [0, 1, 3]


def test_a_dataset_of_mapped_bags_trains_as_one_in_memory(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_memory = load_dataset(corpus, config_of())
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(bag_store, "LEAST_TEXTS", 1)
    for _ in range(2):
        mapped = load_dataset(corpus, config_of())
        assert same_items(mapped, in_memory) and not mapped.queries.rows.flags.writeable  # type: ignore[attr-defined]
        assert len(list((tmp_path / "labelspace" / "bags").iterdir())) == 3
    runs = [Trainer(dataset, replace(config_of(), features=dataset.features)) for dataset in (in_memory, mapped)]
    for place, trainer in enumerate(runs):
        trainer.train(tmp_path / f"run{place}")
    curves = [[point.loss for point in trainer.position.curve] for trainer in runs]
    assert curves[0] == curves[1]


def test_a_field_that_its_tower_does_not_find_is_named(corpus: Path) -> None:
    for field, what in (('asked={tower="label"}', "label"), ('oddity={tower="query"}', "record"),
                        ("nothing={}", "record or label")):  # fmt: skip
        with pytest.raises(InputError, match=rf"has no {what} with a field '{field.partition('=')[0]}'"):
            load_dataset(corpus, load_config(None, [*SHORT, f"features.fields={{{field}}}"]))
    load_dataset(corpus, load_config(None, [*SHORT, 'features.fields={kind={tower="query"}}']))


def test_beside_a_transformer_only_fields_are_fitted(corpus: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json")
    transformer = ("tower.kind=transformer", f"transformer.model={tmp_path}", "features.table=exact", WITHOUT_HISTORY)
    dataset = load_dataset(corpus, config_of(*transformer))
    # Bins of age, and the missing one for label texts; asked and kind.
    assert dataset.lexicon is not None and dataset.features.lexicon == dataset.lexicon.digest
    bags = (dataset.queries.bags, dataset.labels.bags)  # type: ignore[attr-defined]
    used = {row for one in bags for row in one.rows}
    assert used == set(range(dataset.features.rows))
    assert not any(one.unseen.any() for one in bags)
    with pytest.raises(InputError, match=r"features\.pieces: a transformer tower has a tokenizer"):
        load_dataset(corpus, config_of(*transformer, "features.pieces=9"))
    plain = load_config(None, [*SHORT, *transformer[:-1]])
    assert load_dataset(corpus, plain).features == plain.features


def test_records_of_fields_alone_need_fields_that_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "fields"
    folder.mkdir()
    write_lines(
        folder / "train.jsonl", [{"id": str(row), "fields": {"age": row}, "labels": [str(row % 2)]} for row in range(9)]
    )
    with pytest.raises(InputError, match=r"fields: no training record has a text, or a field that is read; name some"):
        load_dataset(folder, load_config(None, SHORT))
    read = load_dataset(folder, load_config(None, [*SHORT, 'features.fields={age={kind="numeric"}}']))
    assert len(read.queries) + len(read.dev.items) == 9
