"""What a run takes of a bundle: its label vectors bit for bit, its label tower, and the settings that it decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.bundle import Bundle
from index.encoder import Encoder
from index.errors import BundleError, InputError
from index.features import FeatureSpec
from tests_support import SUBJECTS, TINY, write_lines
from training.config import Config, load_config
from training.dataset import Dataset, load_dataset
from training.published import Published, check_bundle, check_query_tower
from training.published_config import published_config
from training.runs import RunOptions, train_runs

# As in the collection, others than there, without a text, and of a text that is long or in another script.
LABELS = {"s3": "garden soil", "new": "violin repair", "s0": "apple pie", "blank": " ", "long": "soil " * 3000,
          "地図": "größe 日本 料理", "s39": "another text than it was published with"}  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "corpus"
    folder.mkdir()
    write_lines(folder / "labels.jsonl", [{"id": label, "text": text} for label, text in LABELS.items()])
    ids = list(LABELS)
    rows: list[dict[str, object]] = [
        {"id": f"r{row}", "text": f"a guide to {LABELS[ids[row % 7]][:40]} {row}", "labels": [ids[row % 7]]}
        for row in range(42)
    ]
    write_lines(folder / "train.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def dataset(fresh: Path, published: Published) -> Dataset:
    return load_dataset(fresh, published_config(published))


def test_published_labels_are_taken_bit_for_bit_and_others_by_their_texts(
    published: Published, old: Bundle, dataset: Dataset
) -> None:
    found = published.label_sums(dataset)
    assert found.dtype == np.float32
    for row, (label, text) in enumerate(LABELS.items()):
        place = old.labels.ids.find(label, old.labels.order)
        if place is not None:
            wanted = old.sums[place]
        elif text.strip():
            wanted = old.label_texts.texts([text])[0]
        else:
            wanted = np.zeros(old.manifest.dim, dtype=np.float32)
        assert found[row].tobytes() == wanted.tobytes(), label
    exact = found.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    assert (lengths == 0)[:, 0].tolist() == [label == "blank" for label in LABELS]
    unit = exact / np.where(lengths, lengths, 1.0)
    assert np.abs(published.label_vectors(dataset) - unit).max() < 1e-6


def test_what_nothing_was_known_of_is_read_by_its_text(published: Published, dataset: Dataset) -> None:
    sums = np.array(published.sums)
    place = published.ids.index("s3")
    sums[place] = 0.0
    found = replace(published, sums=sums).label_sums(dataset)
    encoded = published.encode_labels(dataset.labels)
    assert np.abs(found[0] - encoded[0]).max() < 1e-6
    assert found[2].tobytes() == sums[published.ids.index("s0")].tobytes()


def test_both_towers_are_the_bundles(published: Published, old: Bundle, dataset: Dataset) -> None:
    texts = [text for text in LABELS.values() if text.strip()]
    rows = np.flatnonzero([bool(text.strip()) for text in LABELS.values()])
    found = published.encode_labels(dataset.labels.take(rows))
    assert np.abs(found - old.label_texts.texts(texts)).max() < 1e-6
    queries = [f"a guide to {list(LABELS.values())[row % 7][:40]} {row}" for row in range(42)]
    encoded = published.encode_queries(dataset.queries.take(np.arange(dataset.examples)))
    wanted = old.queries.texts(queries).astype(np.float64)
    assert dataset.examples < 42  # dev is held out
    assert all(np.abs(wanted - row).max(axis=1).min() < 1e-6 for row in encoded)


@pytest.mark.parametrize("queries", [True, False])
def test_what_a_run_keeps_is_enough(
    queries: bool, published: Published, old: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    published.keep(tmp_path / "kept", queries=queries)
    kept = Published.open(tmp_path / "kept")
    assert kept.manifest == published.manifest
    assert kept.label_sums(dataset).tobytes() == published.label_sums(dataset).tobytes()
    assert np.array_equal(kept.known_labels(4096), published.known_labels(4096))
    assert (tmp_path / "kept" / "query.onnx").is_file() == queries
    assert not (tmp_path / "kept" / "index.faiss").exists()
    kept.copy_label_tower(tmp_path)
    spec = old.manifest.features
    assert isinstance(spec, FeatureSpec)
    again = Encoder(tmp_path / "label.onnx", old.label_texts.featurizer)
    assert again.texts(SUBJECTS).tobytes() == old.label_texts.texts(SUBJECTS).tobytes()
    with pytest.raises(InputError, match=r"label\.onnx: is there already"):
        kept.copy_label_tower(tmp_path)


@pytest.mark.parametrize("name", ["vectors.npy", "label.onnx", "table.bin", "labels.ids.utf8.npy", "known.label.npy"])
def test_a_damaged_or_missing_file_is_named(name: str, published: Published, tmp_path: Path) -> None:
    published.keep(tmp_path / "kept", queries=False)
    path = tmp_path / "kept" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=name):
        Published.open(tmp_path / "kept")
    path.unlink()
    with pytest.raises(BundleError, match=name):
        Published.open(tmp_path / "kept")


def test_where_no_bundle_is_there_is_none_to_train_against(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no collection here"):
        Published.current(tmp_path / "nothing")
    with pytest.raises(BundleError, match="no bundle here"):
        Published.open(tmp_path)


def test_the_bundle_decides_and_labels_are_not_trained(published: Published) -> None:
    config = published_config(published, None, ["training.epochs=3", "label.free=true", "label.centroid=true"])
    assert config.features == published.manifest.features
    assert config.tower.dim == published.manifest.dim
    assert config.compatible.bundle == published.manifest.bundle
    assert (config.label.free, config.label.centroid, config.tower.shared) == (False, False, False)
    assert config.training.epochs == 3
    assert config.loss.temperature == published.manifest.ranking.temperature


def test_the_settings_of_the_old_run_can_be_used_again(published: Published, tiny_run: Path) -> None:
    config = published_config(published, tiny_run / "config.toml")
    assert config.training == load_config(None, TINY).training
    assert config == published_config(published, tiny_run / "config.toml", init=tiny_run)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (["tower.dim=64"], "tower.dim"),
        (["features.rows=8192"], "features.rows"),
        (["features.ngrams=[4]", "features.pairs=false"], "features.ngrams, features.pairs"),
        (["features.fields=['type']"], "features.fields"),
        (["tower.kind=transformer"], "tower.kind"),
    ],
)
def test_what_contradicts_the_bundle_is_named(settings: list[str], keys: str, published: Published) -> None:
    with pytest.raises(InputError, match=f"other values of {keys}; leave them as they are there"):
        published_config(published, None, settings)


def test_a_tower_of_another_reading_or_width_is_refused(published: Published) -> None:
    spec = published.manifest.features
    assert isinstance(spec, FeatureSpec)
    check_query_tower(published, spec, published.manifest.dim)
    with pytest.raises(InputError, match=r"differs from that of bundle .* in characters, ngrams"):
        check_query_tower(published, replace(spec, ngrams=(5,), characters=3), published.manifest.dim)
    with pytest.raises(InputError, match=r"tower\.dim: the vectors have 31 numbers; those of bundle .* have 32"):
        check_query_tower(published, spec, 31)


def test_settings_of_another_bundle_are_refused(published: Published) -> None:
    check_bundle(Config(), None)
    check_bundle(published_config(published), published)
    for config, given in ((published_config(published), None), (Config(), published)):
        with pytest.raises(InputError, match=r"compatible\.bundle: is '.*', and the label vectors are those of '"):
            check_bundle(config, given)


def test_fields_and_what_was_fitted_come_from_the_bundle(
    field_corpus: Path, field_collection: Path, tmp_path: Path
) -> None:
    published = Published.current(field_collection)
    config = published_config(published, None, ["training.epochs=1", "training.threads=1", "training.dev_share=0.2"])
    dataset = load_dataset(field_corpus, config, published.lexicon)
    assert dataset.features == published.manifest.features
    train_runs(tmp_path / "run", field_corpus, dataset, config, RunOptions(against=published))
    with pytest.raises(InputError, match=r"features\.fields"):
        published_config(published, None, ['features.fields=["type"]'])
    assert (tmp_path / "run" / "published" / "vectors.npy").is_file()
