"""A transformer as the new query tower: its label side is the old one's, and its tokenizer has to be."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from index.bundle import Bundle
from index.bundles import current_bundle
from index.encoder import Encoder
from index.errors import InputError
from tests_support import SUBJECTS, write_corpus
from training.config import load_config
from training.dataset import load_dataset
from training.export import export_run
from training.members import Members
from training.published import Published
from training.published_config import published_config
from training.runs import RunOptions, train_runs
from transformer_support import write_model

SETTINGS = ("tower.kind=transformer", "transformer.device=cpu", "transformer.query_tokens=20",
            "transformer.label_tokens=12", "transformer.rate=3e-3", "training.threads=1", "training.epochs=1",
            "training.batch=16", "negatives.sampled=10", "training.dev_share=0.2")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a model and a collection."""
    folder = tmp_path_factory.mktemp("published")
    corpus = write_corpus(folder / "corpus", train=60, test=2)
    config = load_config(None, [*SETTINGS, f"transformer.model={write_model(folder / 'model')}"])
    train_runs(folder / "run", corpus, load_dataset(corpus, config), config, RunOptions())
    export_run(folder / "run", folder / "collection", report=lambda line: None)
    return folder


def test_its_label_side_stays(folder: Path, tmp_path: Path) -> None:
    published = Published.current(folder / "collection")
    settings = [*SETTINGS[4:], f"transformer.model={folder / 'model'}", "transformer.device=cpu"]
    config = published_config(published, None, settings)
    assert (config.transformer.query_tokens, config.transformer.label_tokens) == (20, 12)
    dataset = load_dataset(folder / "corpus", config)
    train_runs(tmp_path / "run", folder / "corpus", dataset, config, RunOptions(against=published))
    members = Members.load(tmp_path / "run", dataset, None, lambda line: None)
    old = Bundle.open(current_bundle(folder / "collection"))
    assert members.spec == old.manifest.features
    assert members.label_sums(dataset.labels, np.zeros(40, dtype=np.bool_)).tobytes() == old.sums.tobytes()
    assert np.abs(members.encode_labels(dataset.labels) - old.label_texts.texts(SUBJECTS)).max() < 1e-6
    rows = dataset.dev.items
    assert np.abs(members.encode_queries(rows) - published.encode_queries(rows)).max() > 1e-3
    Published.open(tmp_path / "run" / "published").copy_label_tower(tmp_path)
    again = Encoder(tmp_path / "label.onnx", old.label_texts.featurizer)
    assert again.texts(SUBJECTS).tobytes() == old.label_texts.texts(SUBJECTS).tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["transformer.label_tokens=11"], "other values of transformer.label_tokens"),
        (["tower.kind=unified"], "other values of tower.kind"),
    ],
)
def test_other_settings_than_the_bundles_are_named(settings: list[str], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        published_config(Published.current(folder / "collection"), None, settings)


def test_another_tokenizer_or_width_is_named(folder: Path, tmp_path: Path) -> None:
    published = Published.current(folder / "collection")
    other = write_model(tmp_path / "model")
    path = other / "tokenizer.json"
    path.write_text(re.sub(r'"lowercase": ?true', '"lowercase": false', path.read_text()))
    for model, more, message in (
        (other, [], "transformer: a bundle has one reading of texts for both towers, .* in tokenizer; use the same"),
        (folder / "model", ["transformer.projection=64"], r"transformer\.projection: the vectors have 64 numbers"),
    ):
        config = published_config(published, None, [*SETTINGS, f"transformer.model={model}", *more])
        dataset = load_dataset(folder / "corpus", config)
        with pytest.raises(InputError, match=message):
            train_runs(tmp_path / "run", folder / "corpus", dataset, config, RunOptions(against=published))
    assert not (tmp_path / "run").exists()
